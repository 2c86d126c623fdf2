#!/usr/bin/env bash
# Prints the folder that holds cert-manager's controllers, as tests/env/cert-manager/main.go runs them
# (`cert-manager`), and its CRDs (`crds/`). It is a folder of the user's cache, by cert-manager's version
# and our own code, and is made if it is missing. That takes minutes, once; any number of runs at once
# build once.
#
#   tests/env/cert-manager.sh            find or build
#   tests/env/cert-manager.sh find       only find; fails if it is missing
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/cert-manager

main() {
    local version code root
    version=$(sed -n 's|^require github.com/cert-manager/cert-manager v\(\S*\)$|\1|p' "$here/go.mod")
    code=$(cat "$here"/{main.go,go.mod,go.sum} | sha256sum | head --bytes 8)
    root=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/cert-manager/$version-$code
    if [[ ! -d $root ]]; then
        if [[ ${1:-} == find ]]; then
            echo "missing; \`make cert-manager\` provides: cert-manager" >&2
            exit 1
        fi
        provide "$version" "$root"
    fi
    echo "$root"
}

# One at a time: who comes second finds it done. The folder is filled elsewhere and renamed, so that it
# is whole or absent.
provide() {
    local version=$1 root=$2 cache building module
    cache=$(dirname "$root")
    mkdir -p "$cache"
    exec {lock}>"$cache/lock"
    flock "$lock"
    # What a killed run left behind.
    rm -rf "$cache"/building.*
    if [[ ! -d $root ]]; then
        echo "building cert-manager $version; this takes minutes, once" >&2
        building=$(mktemp -d "$cache/building.XXXXXX")
        # shellcheck disable=SC2064
        trap "rm -rf '$building'" EXIT
        CGO_ENABLED=0 GOWORK=off go build -C "$here" -buildvcs=false -trimpath -ldflags '-s -w' \
            -o "$building/cert-manager" . >&2 {lock}>&-
        module=$(GOWORK=off go list -C "$here" -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)
        install -D --mode 0644 --target-directory "$building/crds" "$module"/deploy/crds/*.yaml
        chmod 0755 "$building"
        mv "$building" "$root"
    fi
    exec {lock}>&-
}

main "$@"
