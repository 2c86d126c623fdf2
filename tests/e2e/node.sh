#!/usr/bin/env bash
# The node of the cluster, from inside its sandbox (cluster.sh).
#
#   tests/e2e/node.sh up [ARCHIVE]...    starts all parts; the node is ready, and has the images
#   tests/e2e/node.sh start PART         starts one, and waits until it is ready
#   tests/e2e/node.sh kill PART          ends one by SIGKILL: the API server takes a minute otherwise
#
# The parts: etcd containerd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
address=198.18.0.1
server=https://$address:6443
cd "$NODE"

main() {
    local action=$1
    shift
    case $action in
        up) up "$@" ;;
        start) start "$1" && ready "$1" ;;
        kill) end "$1" ;;
    esac
}

up() {
    mkdir -p log pid cni certificates
    start etcd
    write_node_files
    start containerd
    write_credentials
    ready etcd
    start kube-apiserver
    ready containerd
    import "$@" &
    local importing=$!
    ready kube-apiserver
    write_kubeconfigs
    local part
    for part in kube-controller-manager kube-scheduler kube-proxy kubelet; do
        start "$part"
    done
    ready kubelet
    within 300 "the node is ready" node_ready
    within 300 "pods may be made" kubectl get serviceaccount default
    wait "$importing"
}

import() {
    local archive
    for archive in "$@"; do
        ctr -n k8s.io images import "$archive" >>log/import.log
    done
}

node_ready() {
    kubectl wait --for=condition=Ready --timeout=0 node/n1
}

# Of each part: its program and flags, and how to see that it is ready.
start() {
    local command
    case $1 in
        etcd)
            command=(etcd --data-dir etcd --log-level warn --unsafe-no-fsync
                --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
                --listen-peer-urls http://127.0.0.1:2380
                --initial-advertise-peer-urls http://127.0.0.1:2380
                --initial-cluster default=http://127.0.0.1:2380)
            ;;
        containerd) command=(containerd --config containerd.toml) ;;
        kube-apiserver)
            command=(kube-apiserver --etcd-servers=http://127.0.0.1:2379
                --bind-address=0.0.0.0 --advertise-address="$address" --secure-port=6443
                --cert-dir=certificates --service-cluster-ip-range=10.96.0.0/16
                --service-account-issuer=https://kubernetes.default.svc
                --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key
                --authorization-mode=Node,RBAC --token-auth-file=tokens.csv
                # Or exec, logs and port-forward would look the node's name up.
                --kubelet-preferred-address-types=InternalIP)
            ;;
        kube-controller-manager)
            command=(kube-controller-manager --kubeconfig=kube-controller-manager.kubeconfig
                --service-account-private-key-file=sa.key --root-ca-file=certificates/apiserver.crt
                --use-service-account-credentials=true --leader-elect=false)
            ;;
        kube-scheduler)
            command=(kube-scheduler --kubeconfig=kube-scheduler.kubeconfig --leader-elect=false)
            ;;
        kube-proxy) command=(kube-proxy --config=kube-proxy.yaml) ;;
        kubelet)
            command=(kubelet --kubeconfig=kubelet.kubeconfig --config=kubelet.yaml
                --hostname-override=n1 --node-ip="$address")
            ;;
    esac
    # Not `ip netns exec`, which hides the cgroups.
    nsenter --net=/run/netns/node -- "${command[@]}" >>"log/$1.log" 2>&1 </dev/null &
    echo $! >"pid/$1"
}

ready() {
    case $1 in
        etcd) within 300 "$1 is ready" inside curl -sf --max-time 5 http://127.0.0.1:2379/health ;;
        containerd) within 300 "$1 is ready" ctr version ;;
        kube-apiserver)
            within 300 "$1 is ready" curl -skf --max-time 5 -H "Authorization: Bearer admin" "$server/readyz"
            ;;
        kubelet) within 300 "$1 is ready" inside curl -sf --max-time 5 http://127.0.0.1:10248/healthz ;;
    esac
}

inside() {
    nsenter --net=/run/netns/node -- "$@"
}

end() {
    local pid
    pid=$(cat "pid/$1")
    kill -KILL "$pid"
    within 60 "$1 has ended" gone "$pid"
}

gone() {
    [[ ! -e /proc/$1 ]]
}

# Calls a command until it succeeds, for so many seconds.
within() {
    local seconds=$1 what=$2 deadline=$((SECONDS + $1)) part
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)); then
            echo "not within $seconds s: $what" >&2
            for part in log/*.log; do
                echo "== the end of $part" >&2
                tail -n 5 "$part" >&2
            done
            exit 1
        fi
        sleep 0.1
    done
}

write_node_files() {
    cp "$here"/node/* .
    mv ptp.conflist cni/
    # The cgroup that cluster.sh removes at the end.
    echo "cgroupRoot: /$CLUSTER" >>kubelet.yaml
}

# A token for each user, which is the user's own name; and the key of the service accounts' tokens.
write_credentials() {
    cat >tokens.csv <<'END'
admin,admin,admin,"system:masters"
kube-controller-manager,system:kube-controller-manager,kcm
kube-scheduler,system:kube-scheduler,ks
kube-proxy,system:kube-proxy,kp
kubelet,system:node:n1,n1,"system:nodes"
END
    openssl genrsa -out sa.key 2048 2>/dev/null
    openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
}

write_kubeconfigs() {
    local user
    for user in admin kube-controller-manager kube-scheduler kube-proxy kubelet; do
        cat >"$user.kubeconfig" <<END
apiVersion: v1
kind: Config
current-context: e2e
clusters: [{ name: e2e, cluster: { server: "$server", certificate-authority: "$NODE/certificates/apiserver.crt" } }]
users: [{ name: e2e, user: { token: $user } }]
contexts: [{ name: e2e, context: { cluster: e2e, user: e2e } }]
END
    done
}

main "$@"
