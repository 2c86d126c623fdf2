#!/usr/bin/env bash
# Prints the folder that holds etcd, kube-apiserver and kubectl, which the tests against a real API
# server run. It is KUBEBUILDER_ASSETS if that has them all. Otherwise it is a folder of the user's
# cache, by Kubernetes' version, where what is missing is built. That takes minutes, once; any number
# of runs at once build once.
#
#   tests/env/kube.sh            find or build
#   tests/env/kube.sh find       only find; fails if something is missing
#   tests/env/kube.sh cluster    find or build, with all else of Kubernetes that a cluster runs
#   tests/env/kube.sh gateway    print instead the folder that holds Gateway API's CRDs
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# A program, and the package that is built for it. Each is a `tool` of kube/go.mod too: `go get -tool`
# there adds another. etcd is of the version that this Kubernetes is made for, because with Debian's
# 3.4 the API server has no streaming lists and serves no list from its cache.
gateway_api=v1.6.1
programs=(
    etcd:go.etcd.io/etcd/server/v3
    kube-apiserver:k8s.io/kubernetes/cmd/kube-apiserver
    kubectl:k8s.io/kubernetes/cmd/kubectl
)
cluster_programs=(
    kube-controller-manager:k8s.io/kubernetes/cmd/kube-controller-manager
    kube-scheduler:k8s.io/kubernetes/cmd/kube-scheduler
    kube-proxy:k8s.io/kubernetes/cmd/kube-proxy
    kubelet:k8s.io/kubernetes/cmd/kubelet
)

main() {
    local version root lacking
    if [[ ${1:-} == gateway ]]; then
        gateway_crds
        return
    fi
    if [[ ${1:-} == cluster ]]; then
        programs+=("${cluster_programs[@]}")
    fi
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
    # So that tests find it without a network.
    [[ ${1:-} == find ]] || gateway_crds >/dev/null
    echo "$root/bin"
}

# The module has them as files. It is fetched once, into the cache of Go's modules.
gateway_crds() {
    local module
    module=$(GOWORK=off go mod download -json "sigs.k8s.io/gateway-api@$gateway_api")
    sed -n 's|^\s*"Dir": "\(.*\)",$|\1/config/crd/standard|p' <<<"$module"
}

# Which programs are not in the folder.
lacking() {
    local program
    for program in "${programs[@]%%:*}"; do
        [[ -x $1/$program ]] || echo "$program"
    done
}

# One at a time: who comes second finds it done. A program is built elsewhere and renamed, so that it
# is whole or absent.
provide() {
    local version=$1 root=$2 building program name
    mkdir -p "$root/bin"
    exec {lock}>"$root/lock"
    flock "$lock"
    # What a killed run left behind.
    rm -rf "$root"/building.*
    building=$(mktemp -d "$root/building.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$building'" EXIT
    for program in "${programs[@]}"; do
        name=${program%%:*}
        if [[ ! -x $root/bin/$name ]]; then
            say "building $name for Kubernetes $version; this takes minutes, once"
            build "$version" "${program#*:}" "$building/$name"
            mv "$building/$name" "$root/bin/"
        fi
    done
    exec {lock}>&-
}

build() {
    local version=$1 package=$2 output=$3
    CGO_ENABLED=0 GOWORK=off go build -C "$here/kube" -buildvcs=false -trimpath \
        -ldflags "$(linker_flags "$version")" -o "$output" "$package" >&2 {lock}>&-
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
