#!/usr/bin/env bash
# Starts the test cluster. Usage: see scripts/cluster.sh, which calls this as root and with everything built.
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=tests/cluster/network.sh
source "$CLUSTER_SOURCES/network.sh"
# shellcheck source=tests/cluster/node.sh
source "$CLUSTER_SOURCES/node.sh"

[[ $# == 1 ]] || fail 'usage: scripts/cluster.sh up'
BUILT=$1

# refuse_strangers: two of ours would fight over names and addresses.
refuse_strangers() {
    local owner
    owner=$(recorded_cluster)
    [[ -z $owner || $owner == "$CLUSTER_DIR" ]] ||
        fail "a test cluster of $owner runs on this host, and there can be only one. Use it (KUBECONFIG=$owner/certs/admin.kubeconfig), or end it with: DAVIT_CLUSTER_DIR=$owner scripts/cluster.sh down"
    [[ -n $owner ]] || ! ip -4 route | grep -qE '^10\.21[2-5]\.' ||
        fail "this host has a route into $CLUSTER_RANGE, which the test cluster uses"
}

lay_out() {
    local name
    rm -rf "$BIN" "$CERTS" "$LOGS" "$PIDS" "$CLUSTER_DIR/etcd"
    mkdir -p "$BIN" "$LOGS" "$PIDS" "$RUN_DIR" "$CLUSTER_DIR/etcd" "$CLUSTER_DIR/registry"
    chmod 700 "$CLUSTER_DIR/etcd"
    echo "$CLUSTER_DIR" > "$RUN_DIR/owner"
    # The names of these cannot be changed; those that are not there yet go when the cluster goes.
    for folder in /var/lib/kubelet /var/lib/cni /var/log/containers; do
        [[ -e $folder ]] || echo "$folder" >> "$RUN_DIR/made"
    done
    while read -r name folder; do
        for file in "$folder"/*; do ln -sf "$file" "$BIN/$(basename "$file")"; done
    done < "$BUILT"
    for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do ln -sf kubernetes "$BIN/$name"; done
    ln -sf "$(command -v ctr)" "$BIN/ctr"
    "$BIN/kubernetes" certs -out "$CERTS" -server "https://$HOST_ADDRESS:$API_PORT" -server-address "$HOST_ADDRESS,127.0.0.1,10.215.0.1" \
        -node "node-1=$(node_address node-1),node-2=$(node_address node-2)"
}

start_etcd() {
    # Nothing is lost that a test would miss, and a shared disk is spared.
    start_part etcd etcd --name davit --data-dir "$CLUSTER_DIR/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
        --listen-peer-urls "http://127.0.0.1:$((ETCD_PORT + 1))" --initial-advertise-peer-urls "http://127.0.0.1:$((ETCD_PORT + 1))" \
        --initial-cluster "davit=http://127.0.0.1:$((ETCD_PORT + 1))"
}

# Engines push without encryption to the loopback only, and nodes reach only the bridge. So it is served twice: to be written on the one,
# to be read on the other.
start_registry() {
    write_registry_config registry "$REGISTRY" false
    write_registry_config registry-nodes "$HOST_ADDRESS:$REGISTRY_PORT" true
    start_part registry docker-registry serve "$CLUSTER_DIR/registry.yaml"
    start_part registry-nodes docker-registry serve "$CLUSTER_DIR/registry-nodes.yaml"
}
write_registry_config() {
    cat > "$CLUSTER_DIR/$1.yaml" << END
version: 0.1
log: { level: warn, accesslog: { disabled: true } }
storage:
  filesystem: { rootdirectory: $CLUSTER_DIR/registry }
  maintenance: { readonly: { enabled: $3 } }
http: { addr: "$2" }
END
}

# The estimate of a list's costs asks of etcd what its version in Debian cannot tell, and complains every few seconds.
# The address is one that pods and nodes reach; nothing listens for the rest of the world.
start_api_server() {
    start_part kube-apiserver "$BIN/kube-apiserver" --advertise-address "$HOST_ADDRESS" --bind-address "$HOST_ADDRESS" --secure-port "$API_PORT" \
        --etcd-servers "http://127.0.0.1:$ETCD_PORT" --service-cluster-ip-range "$SERVICE_RANGE" \
        --client-ca-file "$CERTS/ca.crt" --tls-cert-file "$CERTS/apiserver.crt" --tls-private-key-file "$CERTS/apiserver.key" \
        --kubelet-client-certificate "$CERTS/kubelet-client.crt" --kubelet-client-key "$CERTS/kubelet-client.key" \
        --kubelet-certificate-authority "$CERTS/ca.crt" --kubelet-preferred-address-types InternalIP \
        --service-account-issuer https://kubernetes.default.svc.cluster.local --service-account-key-file "$CERTS/service-accounts.pub" \
        --service-account-signing-key-file "$CERTS/service-accounts.key" \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged=false --profiling=false \
        --feature-gates SizeBasedListCostEstimate=false
}

start_controllers() {
    local common=(--leader-elect=false --secure-port 0)
    start_part kube-controller-manager "$BIN/kube-controller-manager" "${common[@]}" --kubeconfig "$CERTS/kube-controller-manager.kubeconfig" \
        --flex-volume-plugin-dir "$CLUSTER_DIR/volume-plugins" --use-service-account-credentials --service-account-private-key-file "$CERTS/service-accounts.key" --root-ca-file "$CERTS/ca.crt"
    start_part kube-scheduler "$BIN/kube-scheduler" "${common[@]}" --kubeconfig "$CERTS/kube-scheduler.kubeconfig"
}

registry_answers() { (exec 3<> "/dev/tcp/127.0.0.1/$REGISTRY_PORT"); }
dns_is_ready() { [[ $(admin -n kube-system get deployment coredns -o 'jsonpath={.status.readyReplicas}') == 1 ]]; }

refuse_strangers
# What a cluster left that was not ended but killed, with the host for example.
"$CLUSTER_SOURCES/down.sh" quietly
trap '[[ $? == 0 ]] || { say "taking down what was started; logs stay in $LOGS"; "$CLUSTER_SOURCES/down.sh" quietly; }' EXIT

begun=$(now_ms)
phase 'certificates, network'
lay_out
network_up
phase 'etcd, API server'
start_etcd
start_registry
wait_for 'answer from etcd' 20 etcd bash -c ": <> /dev/tcp/127.0.0.1/$ETCD_PORT"
start_api_server
start_runtime node-1
import_images node-1
wait_for 'answer from the API server' 60 kube-apiserver admin get --raw /readyz
phase 'controllers, node ready, network policies'
start_controllers
admin apply -f "$CLUSTER_SOURCES/manifests/" > /dev/null
start_kubelet node-1 zone-a
await_node node-1
phase 'cluster DNS ready'
wait_for 'running cluster DNS' 60 kube-controller-manager dns_is_ready
wait_for 'answer from the image registry' 10 registry registry_answers
phase
trap - EXIT
# Whoever asked for root gets to use the cluster.
[[ -z ${SUDO_UID:-} ]] || chown "$SUDO_UID" "$CERTS" "$ADMIN"
say "the cluster is up after $((($(now_ms) - begun) / 1000)) s"
