#!/usr/bin/env bash
# Builds an image with buildah and writes it to an archive, which containerd and docker can load. It
# needs no daemon and no registry, and leaves nothing but the archive. The same input makes the same
# image: all times in it are that of SOURCE_DATE_EPOCH, which is by default the last commit's.
#
#   tests/env/image.sh ARCHIVE NAME:TAG ARGUMENT...     the arguments are buildah's
set -euo pipefail

archive=$1 name=$2
shift 2

mkdir -p "$(dirname "$archive")"
storage=$(mktemp -d "$archive.XXXXXX")
trap 'rm -rf "$storage" "$archive.new"' EXIT
# The driver that works on any file system.
buildah() {
    command buildah --root "$storage/root" --runroot "$storage/run" --storage-driver vfs "$@"
}

epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
buildah build --isolation chroot --timestamp "$epoch" --format docker --quiet --tag "$name" "$@" \
    >/dev/null
rm -f "$archive.new"
buildah push --quiet "$name" "docker-archive:$archive.new:$name"
mv "$archive.new" "$archive"
echo "$archive: $name, $(stat --format %s "$archive") bytes"
