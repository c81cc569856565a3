#!/usr/bin/env bash
# The runtimes of further Pythons: one program for each minor version, beside the default one: millgate-replica-3.12.
# `millgate runtimes add` then lets models be built for that Python.
# usage: deploy/runtimes.sh build [PYTHON…]   of the named Pythons first, and of every other one found here
#        deploy/runtimes.sh second            names one further Python, the newest; says so when there is none
#        deploy/runtimes.sh develop PYTHON    builds its runtime without optimisation, for tests
#
# For each Python only what depends on it is compiled (6 of some 70 crates), and nothing a second time: all builds keep
# their intermediate files in the one build folder, and only the program goes to a folder of its version. Cargo would
# name what is compiled for two Pythons alike, and compile it anew at each change; so the two crates that look at the
# interpreter get a profile by version: a number of code generation units, which changes nothing but the names of what
# is made from them. Whether that works is a matter of time only: Cargo notices another interpreter in any case.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

say() { printf 'runtimes: %s\n' "$*" >&2; }

# about PYTHON: minor version and program of one that can be embedded, or why it cannot.
about() {
    "$1" -I - 2>/dev/null <<'PY' || echo "it does not run"
import sys
if not (3, 9) <= sys.version_info[:2] <= (3, 15):
    sys.exit(print("it is Python %d.%d; from 3.9 to 3.15 can be embedded" % sys.version_info[:2]))
import importlib.util, sysconfig
get = sysconfig.get_config_var
if not get("Py_ENABLE_SHARED"):
    sys.exit(print("it has no shared libpython; build it with --enable-shared"))
if get("Py_GIL_DISABLED"):
    sys.exit(print("it is free-threaded"))
if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
    sys.exit(print("it has no venv (Debian: python3-venv)"))
print("ok", sys.version_info[1], getattr(sys, "_base_executable", "") or sys.executable)
PY
}

# Candidates, the more exactly named first: on the PATH, of pyenv, of uv, in common places.
candidates() {
    local minor folder
    for minor in 9 10 11 12 13 14 15; do type -ap "python3.$minor" || true; done
    for folder in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/* "$HOME"/.local/share/uv/python/* /opt/python* /opt/*/python* \
        /usr/local /usr; do
        for minor in 9 10 11 12 13 14 15; do
            if [ -x "$folder/bin/python3.$minor" ]; then echo "$folder/bin/python3.$minor"; fi
        done
    done
}

# found [PYTHON…]: "MINOR PROGRAM" of the first embeddable Python of each minor but the default's.
found() {
    local python answer default seen
    default=$(about "${PYO3_PYTHON:-python3}")
    seen=" ${default#ok } "
    seen=" ${seen%% /*} "
    while read -r python; do
        answer=$(about "$python")
        case $answer in
            ok\ *) set -- ${answer#ok } ;;
            *) case $named in *" $python "*) say "$python: $answer" ;; esac; continue ;;
        esac
        case $seen in *" $1 "*) continue ;; esac
        seen="$seen$1 "
        printf '%s %s\n' "$1" "$2"
    done
}

# for_python MINOR PROGRAM CARGO-COMMAND…: runs cargo for a Python, sharing what does not depend on it.
for_python() {
    local minor=$1 python=$2 profile=dev
    shift 2
    case " $* " in *" --release "*) profile=release ;; esac
    setting() { printf -- '--config=profile.%s.package.%s.codegen-units=1%02d' "$profile" "$1" "$minor"; }
    PYO3_PYTHON=$python CARGO_BUILD_BUILD_DIR=$target CARGO_TARGET_DIR=$target/runtimes/3.$minor \
        cargo "$@" --workspace --locked "$(setting pyo3-ffi)" "$(setting pyo3-build-config)"
}

# keep MINOR FOLDER: puts the program of a version beside the default one, whole or not at all.
keep() {
    mkdir -p "$target/$2"
    cp "$target/runtimes/3.$1/$2/millgate-replica" "$target/$2/.millgate-replica-3.$1"
    mv "$target/$2/.millgate-replica-3.$1" "$target/$2/millgate-replica-3.$1"
}

build() {
    local minor python any=
    named=" $* "
    while read -r minor python; do
        any=yes
        say "building for Python 3.$minor ($python)"
        for_python "$minor" "$python" build --release --bin millgate-replica </dev/null
        keep "$minor" release
        say "$target/release/millgate-replica-3.$minor; next: millgate runtimes add $python"
    done < <({ [ $# = 0 ] || printf '%s\n' "$@"; candidates; } | found)
    [ -n "$any" ] || say "no Python found besides the default one that can be embedded; name one: make runtimes PYTHONS=/path/to/python3.12"
}

# The one program, without optimisation, beside the programs that tests run.
develop() {
    local answer
    answer=$(about "$1")
    case $answer in ok\ *) set -- ${answer#ok } ;; *) say "error: $1: $answer"; exit 1 ;; esac
    for_python "$1" "$2" build --bin millgate-replica
    keep "$1" debug
}

command=${1:-build}
[ $# = 0 ] || shift
named=
case $command in
    build) build "$@" ;;
    second) candidates | found | sort -n | tail -n 1 | cut -d' ' -f2- ;;
    develop) develop "$1" ;;
    *) echo "usage: deploy/runtimes.sh build [PYTHON…] | second | develop PYTHON" >&2; exit 2 ;;
esac
