#!/usr/bin/env bash
# Prints the folder that holds helm and helm-docs, which the tests of the chart run. It is a folder of
# the user's cache, by their versions, where what is missing is built. That takes minutes, once; any
# number of runs at once build once.
set -euo pipefail

helm=v4.3.1
helm_docs=v1.14.2

main() {
    local root=${XDG_CACHE_HOME:-$HOME/.cache}/sluice/helm/$helm
    local bin=$root/bin
    mkdir -p "$bin"
    exec {lock}>"$root/lock"
    flock "$lock"
    # Without the version, helm says "v4.3", which is older than the one that a chart may ask for.
    provide "$bin/helm" "helm.sh/helm/v4/cmd/helm@$helm" \
        "-s -w -X helm.sh/helm/v4/internal/version.version=$helm"
    # Its name has the version, since it is not the folder's.
    provide "$bin/helm-docs-$helm_docs" "github.com/norwoodj/helm-docs/cmd/helm-docs@$helm_docs" "-s -w"
    ln -sf "helm-docs-$helm_docs" "$bin/helm-docs"
    exec {lock}>&-
    echo "$bin"
}

# A program is built elsewhere and renamed, so that it is whole or absent.
provide() {
    local program=$1 package=$2 flags=$3 building
    if [[ -x $program ]]; then
        return
    fi
    echo "building ${package%%/cmd/*} ${package##*@}; this takes minutes, once" >&2
    building=$(mktemp -d "$(dirname "$program")/../building.XXXXXX")
    CGO_ENABLED=0 GOWORK=off GOBIN=$building go install -trimpath -ldflags "$flags" "$package" \
        >&2 {lock}>&-
    mv "$building"/* "$program"
    rmdir "$building"
}

main "$@"
