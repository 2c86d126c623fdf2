#!/usr/bin/env bash
# Prints the folder that holds etcd, kube-apiserver and kubectl, which the tests against a real API
# server run. It is KUBEBUILDER_ASSETS if that has them all. Otherwise it is a folder of the user's
# cache, by version: etcd is the one in PATH, the others are built there if they are missing. That
# takes minutes, once; any number of runs at once build once.
#
#   tests/env/kube.sh         find or build
#   tests/env/kube.sh find    only find; fails if something is missing
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What is built from kube/go.mod, where each is a `tool` too: `go get -tool` there adds another.
commands=(kube-apiserver kubectl)

main() {
    local version root lacking
    if [[ -n ${KUBEBUILDER_ASSETS:-} ]]; then
        lacking=$(lacking "$KUBEBUILDER_ASSETS")
        if [[ -z $lacking ]]; then
            echo "$KUBEBUILDER_ASSETS"
            return
        fi
        say "passing over KUBEBUILDER_ASSETS, which lacks" $lacking
    fi
    version=$(sed -n 's|^\s*k8s\.io/kubernetes v\(\S*\).*|\1|p' "$here/kube/go.mod")
    root=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/kubernetes/$version
    lacking=$(lacking "$root/bin")
    if [[ -n $lacking ]]; then
        if [[ ${1:-} == find ]]; then
            say "missing; \`make kube\` provides:" $lacking
            exit 1
        fi
        provide "$version" "$root"
    fi
    echo "$root/bin"
}

# Which programs are not in the folder.
lacking() {
    local program
    for program in etcd "${commands[@]}"; do
        [[ -x $1/$program ]] || echo "$program"
    done
}

# One at a time: who comes second finds it done.
provide() {
    local version=$1 root=$2
    mkdir -p "$root/bin"
    exec {lock}>"$root/lock"
    flock "$lock"
    link_etcd "$root/bin"
    build "$version" "$root"
    exec {lock}>&-
}

link_etcd() {
    local etcd
    if ! etcd=$(command -v etcd); then
        say "missing; as root: apt-get install etcd-server"
        exit 1
    fi
    ln -sfn "$etcd" "$1/etcd"
}

# Builds elsewhere and renames, so that a program is whole or absent.
build() {
    local version=$1 root=$2 command packages=()
    for command in "${commands[@]}"; do
        [[ -x $root/bin/$command ]] || packages+=("k8s.io/kubernetes/cmd/$command")
    done
    if ((${#packages[@]} == 0)); then
        return
    fi
    say "building ${packages[*]##*/} $version; this takes minutes, once"
    # What a killed run left behind.
    rm -rf "$root"/building.*
    local building
    building=$(mktemp -d "$root/building.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$building'" EXIT
    CGO_ENABLED=0 GOWORK=off go build -C "$here/kube" -buildvcs=false -trimpath \
        -ldflags "$(linker_flags "$version")" -o "$building/" "${packages[@]}" >&2 {lock}>&-
    mv "$building"/* "$root/bin/"
}

# The version that the API server tells; without them it is "v0.0.0-master".
linker_flags() {
    local version=$1 major minor package flags="-s -w"
    IFS=. read -r major minor _ <<<"$version"
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $package.gitVersion=v$version -X $package.gitMajor=$major"
        flags+=" -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
    done
    echo "$flags"
}

say() {
    echo "$*" >&2
}

main "$@"
