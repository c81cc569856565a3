#!/bin/sh
# pip's installing by uv, where both mean the same. Everything else, and what uv does not manage, is pip's own.

by_pip() {
    MILLGATE_PIP=real exec "$VIRTUAL_ENV/bin/python" -m pip "$@"
}

# Options of both, with the same meaning.
is_known() {
    takes=
    for word; do
        if [ -n "$takes" ]; then
            takes=
            continue
        fi
        case "$word" in
        -r | --requirement | -c | --constraint | -e | --editable | -i | --index-url | --extra-index-url | -f | --find-links | \
            --trusted-host | --no-binary | --only-binary) takes=1 ;;
        --requirement=* | --constraint=* | --editable=* | --index-url=* | --extra-index-url=* | --find-links=* | \
            --trusted-host=* | --no-binary=* | --only-binary=*) ;;
        -r?* | -c?* | -U | --upgrade | --no-deps | --no-index | --pre | -q | --quiet | -v | --verbose | --no-cache-dir | \
            --no-build-isolation | --require-hashes | --disable-pip-version-check) ;;
        -*) return 1 ;;
        esac
    done
}

# What pip is told by variables.
is_translated() {
    for name in $(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p'); do
        case "$name" in
        PIP_INDEX_URL) [ -z "$PIP_INDEX_URL" ] || export UV_DEFAULT_INDEX="$PIP_INDEX_URL" ;;
        PIP_EXTRA_INDEX_URL) export UV_INDEX="$PIP_EXTRA_INDEX_URL" ;;
        PIP_FIND_LINKS) UV_FIND_LINKS=$(echo "$PIP_FIND_LINKS" | tr -s ' ' ',') && export UV_FIND_LINKS ;;
        PIP_NO_INDEX) [ -z "$PIP_NO_INDEX" ] || more=--no-index ;;
        PIP_TRUSTED_HOST) export UV_INSECURE_HOST="$PIP_TRUSTED_HOST" ;;
        PIP_CONSTRAINT) export UV_CONSTRAINT="$PIP_CONSTRAINT" ;;
        PIP_CERT) export SSL_CERT_FILE="$PIP_CERT" ;;
        PIP_DEFAULT_TIMEOUT | PIP_TIMEOUT | PIP_RETRIES | PIP_PROXY | PIP_CACHE_DIR | PIP_DISABLE_PIP_VERSION_CHECK | \
            PIP_REQUIRE_VIRTUALENV | PIP_NO_INPUT | PIP_PROGRESS_BAR | PIP_ROOT_USER_ACTION | PIP_NO_COLOR) ;;
        *) return 1 ;;
        esac
    done
}

more=
[ "$1" = install ] && is_known "$@" && is_translated || by_pip "$@"
[ -z "$UV_FIND_LINKS" ] && unset UV_FIND_LINKS
if ! '@uv@' pip "$@" $more; then
    echo "uv did not manage it: pip tries" >&2
    by_pip "$@"
fi
'@python@' -I -S '@compiled@' '@site_packages@' "$UV_CACHE_DIR" '@state@' || echo "not compiled: imports take longer" >&2
