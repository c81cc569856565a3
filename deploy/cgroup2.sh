#!/usr/bin/env bash
# Runs a command where control groups are of version 2 only: in a virtual machine with Debian's kernel, without KVM, on
# this machine's own files, whose changes there stay in its memory. Needs root, for the files to be shared as they are.
# usage: deploy/cgroup2.sh [COMMAND…]     without one: the tests that have to do with control groups
set -eu
cd "$(dirname "$0")/.."
here=$PWD
cache=${CARGO_TARGET_DIR:-target}/cgroup2
memory=3G

say() { printf 'cgroup2: %s\n' "$*" >&2; }
die() { printf 'cgroup2: error: %s\n  hint: %s\n' "$1" "$2" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "this user may not share all files" "run it as root"
command -v apt-get >/dev/null 2>&1 || die "no \`apt-get\`" "it takes its kernel from Debian; elsewhere boot with cgroup v2 and run the tests"
packages=()
command -v qemu-system-x86_64 >/dev/null 2>&1 || packages+=(qemu-system-x86)
command -v busybox >/dev/null 2>&1 || packages+=(busybox-static)
if [ "${#packages[@]}" != 0 ]; then
    say "installing Debian packages ${packages[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
virtiofsd=$(command -v virtiofsd || echo /usr/lib/qemu/virtiofsd)
[ -x "$virtiofsd" ] || virtiofsd=/usr/libexec/virtiofsd
[ -x "$virtiofsd" ] || die "no \`virtiofsd\`" "Debian: virtiofsd, or qemu-system-common before Debian 13"

# The kernel is only unpacked: this machine never boots it.
if [ ! -d "$cache/kernel" ]; then
    mkdir -p "$cache/unpacked"
    name=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
    say "fetching $name"
    (cd "$cache" && apt-get download -qq "$name" 2>/dev/null)
    dpkg-deb -x "$cache/$name"_*.deb "$cache/unpacked"
    rm -f "$cache/$name"_*.deb
    mv "$cache/unpacked" "$cache/kernel"
fi

if [ $# = 0 ]; then
    cargo build --workspace --bins --locked
    tests=()
    for name in limits isolation lifecycle; do
        tests+=("$(cargo test --locked -p millgate-supervisor --test "$name" --no-run 2>&1 | sed -n 's/.*(\(.*\))$/\1/p' | tail -n 1)")
    done
    set -- sh -c 'set -e; for one; do "$one" --test-threads=2 --color=never; done' sh "${tests[@]}"
fi

# What the guest starts with: enough to mount this machine's files and go there.
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; rm -rf "$work"' EXIT
mkdir -p "$work/first/"{bin,dev,proc,sys,lower,upper,root}
cp "$(command -v busybox)" "$work/first/bin/busybox"
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci fuse virtiofs overlay; do
    find "$cache/kernel/lib/modules" -name "$module.ko" -exec cp {} "$work/first/" \;
done
{
    for name in PATH HOME PYENV_ROOT PYENV_VERSION PYO3_PYTHON; do
        if [ -n "${!name-}" ]; then printf 'export %s=%q\n' "$name" "${!name}"; fi
    done
    printf 'cd %q && exec' "$here"
    printf ' %q' "$@"
} >"$work/first/command"
cat >"$work/first/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci fuse virtiofs overlay; do
    $b insmod /$module.ko
done
$b mount -t virtiofs -o ro host /lower
$b mount -t tmpfs -o size=80% none /upper
$b mkdir /upper/changes /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/changes,workdir=/upper/work none /root
cd /root
$b mount -t proc none proc
$b mount -t sysfs none sys
$b mount -t devtmpfs none dev
$b mkdir -p dev/shm dev/pts
$b mount -t tmpfs none dev/shm
$b mount -t devpts none dev/pts
$b mount -t tmpfs -o mode=1777 none tmp
$b mount -t tmpfs none run
$b mount -t cgroup2 none sys/fs/cgroup
$b ip link set lo up
$b cp /bin/busybox /command run/
cat_command='/bin/bash /run/command; echo "guest: ended $?"; /run/busybox poweroff -f'
exec $b switch_root /root /run/busybox sh -c "$cat_command"
INIT
chmod +x "$work/first/init"
(cd "$work/first" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/first.cpio"

"$virtiofsd" --socket-path="$work/files.sock" -o source=/ -o sandbox=chroot -o cache=always >"$work/virtiofsd.log" 2>&1 &
pids+=($!)
for _ in $(seq 100); do [ -S "$work/files.sock" ] && break; sleep 0.1; done
qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" -nodefaults -nographic -no-reboot -serial stdio \
    -object memory-backend-memfd,id=memory,size="$memory",share=on -numa node,memdev=memory \
    -chardev socket,id=files,path="$work/files.sock" -device vhost-user-fs-pci,chardev=files,tag=host \
    -kernel "$cache"/kernel/boot/vmlinuz-* -initrd "$work/first.cpio" \
    -append "console=ttyS0 quiet panic=-1 edd=off" </dev/null | tee "$work/console"
status=$(sed -n 's/^guest: ended \([0-9]*\).*/\1/p' "$work/console" | tail -n 1)
[ -n "$status" ] || die "the guest did not come to the command's end" "see above, and $virtiofsd's words: $(tail -n 3 "$work/virtiofsd.log")"
exit "$status"
