#!/usr/bin/env bash
# Sees to it that the programs which the tests use are there. As root it installs the Debian packages
# that are missing; otherwise it names them and fails. It does nothing when all is there.
set -euo pipefail

# The oldest Go that builds tests/clients/go.
go=1.26

# A program, and the Debian package that has it.
programs=(
    cc:build-essential
    openssl:openssl
    curl:curl
    gnutls-cli:gnutls-bin
    testssl:testssl.sh
    python3:python3
    promtool:prometheus
    dnsmasq:dnsmasq-base
    ip:iproute2
    unshare:util-linux
    mount:mount
    strace:strace
    haproxy:haproxy
    nginx:nginx
)

# A file, and the Debian package that has it.
files=(
    /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream
)

main() {
    require_go
    install_packages
    install_rust_tools
}

# Named, not installed: Debian's own may be too old.
require_go() {
    local version=none
    if command -v go >/dev/null; then
        # Such as go1.24.4, or "go1.26.0 X:nocoverageredesign".
        version=$(go env GOVERSION)
        version=${version#go}
        version=${version%% *}
    fi
    if [[ $version == none ]] || ! at_least "$go" "$version"; then
        echo "missing: go, $go or newer (Debian's package is golang-go, in stable or backports);" \
            "found: $version" >&2
        exit 1
    fi
}

# Whether version $2 is $1 or newer.
at_least() {
    [[ $(printf '%s\n' "$1" "$2" | sort --version-sort | head -n 1) == "$1" ]]
}

install_packages() {
    local missing=() program file
    for program in "${programs[@]}"; do
        command -v "${program%%:*}" >/dev/null || missing+=("${program#*:}")
    done
    for file in "${files[@]}"; do
        [[ -e ${file%%:*} ]] || missing+=("${file#*:}")
    done
    if ((${#missing[@]} == 0)); then
        return
    fi
    if (($(id -u) != 0)); then
        echo "missing; as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}"
    local install=(apt-get install --yes --no-install-recommends "${missing[@]}")
    export DEBIAN_FRONTEND=noninteractive
    # The package lists may be absent or stale.
    "${install[@]}" || { apt-get update && "${install[@]}"; }
}

install_rust_tools() {
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        rustup component add rustfmt clippy
    fi
    if ! cargo deny --version >/dev/null 2>&1; then
        echo "installing cargo-deny; this takes minutes, once"
        # Not optimised: it runs for seconds, and optimising it takes minutes.
        cargo install --locked --debug cargo-deny@0.20.2
    fi
    if ! cargo cyclonedx --version >/dev/null 2>&1; then
        echo "installing cargo-cyclonedx; this takes minutes, once"
        cargo install --locked --debug cargo-cyclonedx@0.5.9
    fi
}

main
