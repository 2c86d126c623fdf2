#!/usr/bin/env bash
# Runs a command beside a Kubernetes cluster of one node, which is made for it and goes with it.
#
#   tests/e2e/cluster.sh [--image ARCHIVE]... COMMAND [ARGUMENT]...
#
# The cluster is real: etcd, kube-apiserver, controller-manager, scheduler, kubelet, kube-proxy,
# containerd, CNI (node.sh has them). The command has kubectl and helm in its PATH and the
# administrator's KUBECONFIG. It is in the network of a client, 198.18.0.2, to which the node is
# 198.18.0.1 and the router to all else. `tests/e2e/cluster.sh bash` gives a shell there.
#
# All of it lives in namespaces of its own: processes, mounts, networks, IPC. Whatever ends this script,
# SIGKILL too, ends the first process there, and with it the kernel ends the others and drops what they
# mounted; their files are in memory. What the kernel would keep is the node's cgroups. They are named
# after this process, removed at the end, and after a SIGKILL by the next run.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

main() {
    if [[ ${1:-} == --inside ]]; then
        inside "${@:2}"
        return
    fi
    if (($(id -u) != 0)); then
        say "a Kubernetes node takes root"
        exit 1
    fi
    local programs helm
    programs=$("$here/../env/kube.sh" cluster)
    helm=$("$here/../env/helm.sh")
    export PATH=$programs:$helm:$PATH
    export CLUSTER=sluice-e2e-$$
    sandbox=
    trap clean EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    remove_cgroups_of_the_dead
    make_cgroups
    # In the background, because bash answers no signal while it waits for what is in front.
    env --unset=KUBERNETES_SERVICE_HOST --unset=http_proxy --unset=https_proxy --unset=all_proxy \
        --unset=HTTP_PROXY --unset=HTTPS_PROXY --unset=ALL_PROXY \
        setpriv --pdeathsig KILL -- \
        unshare --net --pid --ipc --mount --propagation private --mount-proc --fork --kill-child -- \
        "$here/cluster.sh" --inside "$@" <&0 &
    sandbox=$!
    wait "$sandbox"
}

# As the first process of the sandbox.
inside() {
    local images=()
    while [[ ${1:-} == --image ]]; do
        images+=("$2")
        shift 2
    done
    trap 'exit 130' INT TERM HUP
    local folder
    for folder in /run /var/lib /var/log; do
        mount -t tmpfs -o mode=0755 sluice-e2e "$folder"
    done
    export NODE=/run/e2e
    export KUBECONFIG=$NODE/admin.kubeconfig TMPDIR=$NODE/tmp HOME=$NODE/home
    mkdir -p "$NODE" "$TMPDIR" "$HOME"
    guard_the_machine
    make_networks
    "$here/node.sh" up "${images[@]}"
    local code=0
    "$@" || code=$?
    if ((code != 0)) && [[ -n ${E2E_LOGS:-} ]]; then
        mkdir -p "$E2E_LOGS"
        cp "$NODE"/log/*.log "$E2E_LOGS"
    fi
    exit "$code"
}

# kubelet would set these of the machine's. What it wants to read there, it finds; the machine keeps
# its own.
guard_the_machine() {
    local setting
    for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        cover "/proc/sys/${setting%=*}" "${setting#*=}"
    done
    # No name is looked up outside.
    cover /etc/resolv.conf ''
}

# Lays a file with that text over another.
cover() {
    local file=$1 text=$2 copy
    [[ -e $file ]] || return 0
    copy=$NODE/guard/$file
    mkdir -p "$(dirname "$copy")"
    printf '%s' "$text" >"$copy"
    mount --bind "$copy" "$file"
}

make_networks() {
    ip netns add node
    ip link add eth0 type veth peer name eth0 netns node
    ip -n node address add 198.18.0.1/24 dev eth0
    ip -n node link set lo up
    ip -n node link set eth0 up
    # Services, for what is on the node itself: kube-proxy changes the address of what is on its way.
    ip -n node route add 10.96.0.0/16 via 198.18.0.2
    ip address add 198.18.0.2/24 dev eth0
    ip link set lo up
    ip link set eth0 up
    ip route add default via 198.18.0.1
}

clean() {
    local code=$?
    trap '' INT TERM HUP
    if [[ -n $sandbox ]]; then
        kill -KILL "$sandbox" 2>/dev/null || true
        wait "$sandbox" 2>/dev/null || true
    fi
    if ! remove_cgroups "$CLUSTER"; then
        say "left behind: $(cgroups "$CLUSTER")"
        exit 1
    fi
    exit "$code"
}

# kubelet wants the one that it is given to exist, in each hierarchy.
make_cgroups() {
    local hierarchy
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        mkdir "/sys/fs/cgroup/$CLUSTER"
        return
    fi
    for hierarchy in /sys/fs/cgroup/*/; do
        mkdir "$hierarchy$CLUSTER"
    done
}

cgroups() {
    find /sys/fs/cgroup -maxdepth 2 -type d -name "$1"
}

# They can be removed once the last process has left, which is a moment after it was killed.
remove_cgroups() {
    local attempt folder
    for attempt in {1..100}; do
        for folder in $(cgroups "$1"); do
            find "$folder" -depth -type d -exec rmdir {} \; 2>/dev/null
        done
        [[ -n $(cgroups "$1") ]] || return 0
        sleep 0.1
    done
    return 1
}

# What a run left that was killed by SIGKILL.
remove_cgroups_of_the_dead() {
    local folder
    for folder in $(cgroups 'sluice-e2e-*'); do
        if [[ ! -e /proc/${folder##*-} ]]; then
            remove_cgroups "$(basename "$folder")" || say "left behind by another run: $folder"
        fi
    done
}

say() {
    echo "$*" >&2
}

main "$@"
