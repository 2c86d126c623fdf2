#!/usr/bin/env bash
# Runs the tests on a real cluster: builds what they need beside the image of sluice, which is to be in
# target/image, makes the cluster, and runs tests/e2e/main.rs in it.
#
#   tests/e2e/run.sh [ARGUMENT]...      the arguments are a test binary's: a filter, --list, ...
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
images=target/image

main() {
    local prometheus tests
    PROMETHEUS_OPERATOR_CRDS=$(tests/env/prometheus.sh operator)
    export PROMETHEUS_OPERATOR_CRDS
    prometheus=$(tests/env/prometheus.sh)
    build_images
    tests=$(build_tests)
    export PATH=$prometheus:$PATH
    tests/e2e/cluster.sh --image "$PWD/$images/sluice.tar" --image "$PWD/$images/backend.tar" \
        --image "$PWD/$images/pause.tar" "$tests" "$@"
}

build_images() {
    local target
    mkdir -p "$images/backend"
    CGO_ENABLED=0 GOWORK=off go build -C tests/e2e/backend -buildvcs=false -trimpath \
        -ldflags '-s -w' -o "$PWD/$images/backend/backend"
    for target in backend pause; do
        tests/env/image.sh "$images/$target.tar" "localhost/$target:e2e" \
            --target "$target" --file tests/e2e/backend/Dockerfile "$images/backend"
    done
}

# Prints the path of the test binary.
build_tests() {
    cargo test --locked --test e2e --no-run --message-format json-render-diagnostics |
        jq -r 'select(.reason == "compiler-artifact" and .target.name == "e2e").executable'
}

main "$@"
