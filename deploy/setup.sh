#!/usr/bin/env bash
# Brings what building and testing need and the machine lacks. Idempotent: a second run changes nothing.
# usage: deploy/setup.sh build|test|bench|fuzz
set -eu
cd "$(dirname "$0")/.."
need=${1:-build}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n  hint: %s\n' "$1" "$2" >&2; exit 1; }

debian() { # debian COMMAND PACKAGE: installs PACKAGE when COMMAND is missing
    command -v "$1" >/dev/null 2>&1 && return 0
    command -v apt-get >/dev/null 2>&1 || die "\`$1\` is missing" "install it with this system's package manager"
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    say "installing Debian package $2"
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}

command -v cargo >/dev/null 2>&1 || die "\`cargo\` is missing" "install Rust 1.95 or newer with rustup"
debian cc gcc
debian curl curl

python=${PYO3_PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || die "\`$python\` is missing" "install Python 3.9 or newer, or name one in PYO3_PYTHON"
"$python" - <<'PY' || die "\`$python\` cannot be embedded" "use a Python built with --enable-shared, with its headers and venv (Debian: python3-dev, python3-venv), or name one in PYO3_PYTHON"
import importlib.util, os, sys, sysconfig
shared = sysconfig.get_config_var("Py_ENABLE_SHARED")
ok = sys.version_info >= (3, 9) and shared and importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")
sys.exit(0 if ok else 1)
PY

# uv, which stands in for pip in builds: beside the programs, unless this host has one.
uv_version=0.13.9
target=${CARGO_TARGET_DIR:-target}
uv_into() { # uv_into FOLDER
    [ ! -x "$1/uv" ] && ! command -v uv >/dev/null 2>&1 || return 0
    mkdir -p "$1"
    # Whole, or not there.
    for other in "$target"/*/uv; do
        if [ -x "$other" ]; then cp "$other" "$1/uv.partial" && mv "$1/uv.partial" "$1/uv" && return 0; fi
    done
    say "installing uv $uv_version into $1"
    venv=$(mktemp -d)
    if "$python" -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check "uv==$uv_version"; then
        cp "$venv/bin/uv" "$1/uv.partial" && mv "$1/uv.partial" "$1/uv"
    else
        say "there is no uv to be had: builds use pip, which takes longer"
    fi
    rm -rf "$venv"
}
case $need in
build | bench) uv_into "$target/release" ;;
test) uv_into "$target/debug" ;;
esac

if [ "$need" = bench ]; then
    debian wrk wrk
    debian nginx nginx-light
    debian valgrind valgrind
    debian strace strace
fi

deny() { # cargo-deny. Unoptimised: it builds in half the time and runs for a second.
    cargo deny --version >/dev/null 2>&1 && return 0
    say "installing cargo-deny"
    cargo install --locked --debug cargo-deny
}

if [ "$need" = fuzz ]; then
    debian c++ g++
    deny
    cargo fuzz --version >/dev/null 2>&1 || {
        say "installing cargo-fuzz"
        cargo install --locked cargo-fuzz
    }
fi

[ "$need" = test ] || exit 0

debian promtool prometheus
# Its server is not among the commands: `debian` is told to look for what never is.
deploy/postgres.sh found 2>/dev/null || debian postgres-server-of-tests postgresql

cargo nextest --version >/dev/null 2>&1 || {
    say "installing cargo-nextest"
    cargo install --locked cargo-nextest
}
deny
stamp=.venv/requirements-installed
if ! cmp -s deploy/dev-requirements.txt "$stamp"; then
    say "creating .venv with the Python tools for tests"
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/dev-requirements.txt
    cp deploy/dev-requirements.txt "$stamp"
fi
