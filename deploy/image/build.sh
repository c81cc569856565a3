#!/usr/bin/env bash
# Builds the image `millgate:latest` with docker or podman, whichever has an engine.
set -eu
cd "$(dirname "$0")/../.."
for engine in docker podman; do
    if command -v "$engine" >/dev/null 2>&1 && "$engine" info >/dev/null 2>&1; then
        exec "$engine" build -f deploy/image/Containerfile -t "${IMAGE:-millgate:latest}" .
    fi
done
echo "image: error: no container engine answers (tried docker, podman)" >&2
echo "  hint: start one, as in \`systemctl start docker\`" >&2
exit 1
