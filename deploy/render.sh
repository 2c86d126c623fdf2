#!/usr/bin/env bash
# Makes what is generated for an installation: the manifests of this folder from the chart, the chart's
# copy of the CRDs, and the table of values in its README.
#
#   deploy/render.sh          make them
#   deploy/render.sh check    fail if one of them is not as it would be made, and say how it differs
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
chart=charts/sluice

main() {
    local made
    PATH=$(tests/env/helm.sh):$PATH
    made=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$made'" EXIT
    make_all "$made"
    if [[ ${1:-} == check ]]; then
        compare "$made"
    else
        rm -rf "$chart/files/crds"
        cp -R "$made/." .
    fi
}

make_all() {
    local values name
    mkdir -p "$1/deploy" "$1/$chart/files/crds"
    cp crds/*.yaml "$1/$chart/files/crds"
    for values in deploy/values/*.yaml; do
        name=$(basename "$values")
        manifests "$values" >"$1/deploy/$name"
    done
    helm-docs --chart-search-root "$chart" --template-files README.md.gotmpl --sort-values-order file \
        --log-level error --dry-run >"$1/$chart/README.md"
}

# Without what is there for Helm alone.
manifests() {
    local release=sluice namespace=sluice
    # Beside an app of its own, in its namespace.
    if [[ $1 == */sidecar.yaml ]]; then
        release=app namespace=default
    fi
    echo "# Made from the chart by deploy/render.sh, with $1. Write your own registry into \`image\`."
    echo "---"
    helm template "$release" "$chart" --namespace "$namespace" --values "$1" |
        grep -v -e '^# Source: ' -e '^ *helm.sh/chart: ' -e '^ *app.kubernetes.io/managed-by: Helm$' |
        sed -e '1{/^---$/d}' -e '/^ *$/d'
}

compare() {
    local file stale=0
    while IFS= read -r file; do
        diff -u "$file" "$1/$file" || stale=1
    done < <(cd "$1" && find . -type f | sed 's|^\./||')
    while IFS= read -r file; do
        [[ -e $1/$file ]] || { echo "$file: is not in crds/" && stale=1; }
    done < <(find "$chart/files/crds" -type f)
    if ((stale)); then
        echo "stale: run deploy/render.sh" >&2
        exit 1
    fi
}

main "$@"
