#!/usr/bin/env bash
# Gathers what a release consists of: the static binary, the image, what they are made of (a software
# bill of materials in CycloneDX), and the checksums of it all. The same commit makes the same files.
#
#   tests/env/release.sh FOLDER BINARY IMAGE...
#   tests/env/release.sh --sbom FILE        the bill of materials alone, checked against cargo's own list
set -euo pipefail
cd "$(dirname "$0")/../.."

main() {
    if [[ $1 == --sbom ]]; then
        sbom "$2"
        return
    fi
    local folder=$1 version architecture
    version=$(sed -n '0,/^version/s/^version = "\(.*\)"/\1/p' Cargo.toml)
    architecture=$(target)
    architecture=${architecture%%-*}
    rm -rf "$folder"
    mkdir -p "$folder"
    install -m 0755 "$2" "$folder/sluice-$version-linux-$architecture"
    install -m 0644 "$3" "$folder/sluice-$version-image-$architecture.tar"
    sbom "$folder/sluice-$version.cdx.json"
    (cd "$folder" && sha256sum -- * >SHA256SUMS && sha256sum --check --quiet SHA256SUMS)
    (cd "$folder" && cat SHA256SUMS)
}

target() {
    rustc -vV | sed -n 's/^host: //p'
}

# Writes the bill of materials, without what differs from one run to the next. What only builds or
# tests the binary is no part of it.
sbom() {
    local file
    file=$(realpath --canonicalize-missing "$1")
    mkdir -p "$(dirname "$file")"
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)} \
        cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries \
        --target "$(target)" --no-build-deps
    # It writes beside Cargo.toml, one file for each binary.
    mv sluice_bin.cdx.json "$file"
    python3 tests/env/sbom.py "$file" "$(target)"
}

main "$@"
