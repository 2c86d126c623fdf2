#!/usr/bin/env bash
# Prints the folder that holds a Prometheus server that discovers what it scrapes in Kubernetes, which
# Debian's does not. It is built there, in the user's cache, if it is missing; that takes minutes, once.
#
#   tests/env/prometheus.sh             find or build
#   tests/env/prometheus.sh operator    print instead the folder that holds the Prometheus operator's CRDs
set -euo pipefail

version=v0.316.0
operator=v0.85.0

# The module has them as files. It is fetched once, into the cache of Go's modules.
if [[ ${1:-} == operator ]]; then
    module=$(cd / && GOWORK=off go mod download -json \
        "github.com/prometheus-operator/prometheus-operator@$operator")
    sed -n 's|^\s*"Dir": "\(.*\)",$|\1/example/prometheus-operator-crd|p' <<<"$module"
    exit
fi

root=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/prometheus/$version
mkdir -p "$root"
exec {lock}>"$root/lock"
flock "$lock"
if [[ ! -x $root/bin/prometheus ]]; then
    echo "building Prometheus $version; this takes minutes, once" >&2
    building=$(mktemp -d "$root/building.XXXXXX")
    trap 'rm -rf "$building"' EXIT
    CGO_ENABLED=0 GOWORK=off GOFLAGS= GOBIN=$building go install -trimpath -ldflags '-s -w' \
        -tags remove_all_sd,enable_kubernetes_sd \
        "github.com/prometheus/prometheus/cmd/prometheus@$version" >&2 {lock}>&-
    mkdir -p "$root/bin"
    mv "$building/prometheus" "$root/bin/"
fi
echo "$root/bin"
