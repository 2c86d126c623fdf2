#!/usr/bin/env bash
# Installs the Debian packages that `make e2e` needs and tests/env/prepare.sh does not. It does nothing
# when all is there.
set -euo pipefail

# A program, and the Debian package that has it.
programs=(
    buildah:buildah
    containerd:containerd
    runc:runc
    /usr/lib/cni/ptp:containernetworking-plugins
    nft:nftables
    # With which the CNI plugin portmap serves hostPorts.
    iptables:iptables
    jq:jq
)

if (($(id -u) != 0)); then
    echo "make e2e runs a Kubernetes node, which takes root" >&2
    exit 1
fi
missing=()
for program in "${programs[@]}"; do
    command -v "${program%:*}" >/dev/null || missing+=("${program##*:}")
done
if ((${#missing[@]} == 0)); then
    exit
fi
echo "installing ${missing[*]}"
install=(apt-get install --yes --no-install-recommends "${missing[@]}")
export DEBIAN_FRONTEND=noninteractive
# The package lists may be absent or stale.
"${install[@]}" || { apt-get update && "${install[@]}"; }
