#!/usr/bin/env bash
# Builds an image with buildah and writes it to an archive, which containerd and docker can load. It
# needs no daemon and no registry, and leaves nothing but the archive. The same input makes the same
# image: all times in it are that of SOURCE_DATE_EPOCH, which is by default the last commit's.
#
#   tests/env/image.sh ARCHIVE NAME:TAG ARGUMENT...     the arguments are buildah's
set -euo pipefail

main() {
    if [[ $1 == --inside ]]; then
        inside "${@:2}"
        return
    fi
    local user=()
    (($(id -u) == 0)) || user=(--map-root-user)
    unshare --mount --propagation private "${user[@]}" -- "${BASH_SOURCE[0]}" --inside "$@"
}

# Where buildah's storage and caches are in memory, and go with this process.
inside() {
    local archive=$1 name=$2
    shift 2
    mkdir -p "$(dirname "$archive")"
    archive=$(realpath "$archive")
    local epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
    mount -t tmpfs -o mode=0755 buildah /var/lib
    export TMPDIR=/var/lib
    # The driver that works on any file system.
    local storage=(--root /var/lib/root --runroot /var/lib/run --storage-driver vfs)
    buildah "${storage[@]}" build --isolation chroot --format oci --identity-label=false \
        --timestamp "$epoch" --quiet --tag "$name" "$@" >/dev/null
    rm -f "$archive.new"
    buildah "${storage[@]}" push --quiet "$name" "docker-archive:$archive.new:$name"
    mv "$archive.new" "$archive"
    echo "$archive: $name, $(stat --format %s "$archive") bytes"
}

main "$@"
