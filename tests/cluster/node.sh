# shellcheck shell=bash
# What one node consists of: its pods' network, its container runtime, kubelet and kube-proxy. Sourced, not run. Bash.

# Where the network plugins are: Debian's package, or the usual place.
cni_plugins() {
    local folder
    for folder in /usr/lib/cni /opt/cni/bin; do
        if [[ -x $folder/bridge && -x $folder/host-local ]]; then echo "$folder"; return; fi
    done
    fail 'the network plugins bridge and host-local are not installed'
}

# The hierarchies of control groups: one with version 2, one a controller with version 1, or both.
cgroup_roots() {
    awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/mounts
}

# make_cgroups <node>: the group that holds all pods of the node. The kubelet wants it to be there.
make_cgroups() {
    local root group file
    while read -r root; do
        for group in "$root/davit-cluster" "$root/davit-cluster/$1"; do
            mkdir -p "$group"
            # With version 1 a group begins without processors and memory nodes; with version 2 without controllers.
            for file in cpuset.cpus cpuset.mems; do
                [[ ! -f $group/$file || -n $(cat "$group/$file") ]] || cat "$group/../$file" > "$group/$file"
            done
            [[ ! -f $group/cgroup.subtree_control ]] || sed 's/[a-z]\+/+&/g' "$group/cgroup.controllers" > "$group/cgroup.subtree_control" 2> /dev/null || true
        done
    done < <(cgroup_roots)
}

# Names in a host's resolver that only the host itself reaches would be asked for by pods in vain.
resolver_file() {
    if grep -qE '^nameserver\s+127\.' /etc/resolv.conf && [[ -s /run/systemd/resolve/resolv.conf ]]; then
        echo /run/systemd/resolve/resolv.conf
    else
        echo /etc/resolv.conf
    fi
}

# in_node <node> <command...>: in the node's network. `nsenter` and not `ip netns exec`, which would hide /sys/fs/cgroup.
in_node() { nsenter --net="$(node_network "$1")" "${@:2}"; }
node_part() { start_part "$2-$1" nsenter --net="$(node_network "$1")" "${@:3}"; }

write_runtime_config() {
    local node=$1 number=${1#node-} dir=$CLUSTER_DIR/$1
    local plugins
    plugins=$(cni_plugins)
    mkdir -p "$dir/cni" "$dir/registries/$REGISTRY" "$dir/registries/_default"
    # No port mapping: nothing here uses host ports, and its chains would outlive the pods.
    cat > "$dir/cni/pods.conflist" << END
{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
  { "type": "bridge", "bridge": "dvk-pods$number", "isGateway": true, "hairpinMode": true,
    "ipam": { "type": "host-local", "dataDir": "$RUN_DIR/$node/addresses",
              "ranges": [[{ "subnet": "10.214.$number.0/24" }]], "routes": [{ "dst": "0.0.0.0/0" }] } } ] }
END
    # Images are named by the registry's address on the host's loopback, where nodes do not reach it.
    local registry=http://$HOST_ADDRESS:$REGISTRY_PORT
    cat > "$dir/registries/$REGISTRY/hosts.toml" << END
server = "$registry"
[host."$registry"]
  capabilities = ["pull", "resolve"]
END
    # Every other image is looked for there first, so that it is found by the name that it has elsewhere.
    cat > "$dir/registries/_default/hosts.toml" << END
[host."$registry"]
  capabilities = ["pull", "resolve"]
END
    cat > "$dir/containerd.toml" << END
version = 2
root = "$dir/containerd"
state = "$RUN_DIR/$node/containerd"
# The engine's own containerd has the same plugins; those not needed here would only look for tools that may be missing.
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "$(node_runtime "$node")"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  stream_server_address = "127.0.0.1"
  # A host may lack the right to give a process a better score than its own.
  restrict_oom_score_adj = true
  # So that what is left of a pod's network can be found.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$plugins"
    conf_dir = "$dir/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$dir/registries"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    # Found by this name on the path that containerd is started with.
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.gvisor]
      runtime_type = "io.containerd.runsc.v1"
END
}

write_kubelet_config() {
    local node=$1 dir=$CLUSTER_DIR/$1
    cat > "$dir/kubelet.yaml" << END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(node_address "$node")
authentication:
  anonymous: { enabled: false }
  webhook: { enabled: true }
  x509: { clientCAFile: $CERTS/ca.crt }
authorization: { mode: Webhook }
readOnlyPort: 0
healthzPort: 0
tlsCertFile: $CERTS/kubelet-$node.crt
tlsPrivateKeyFile: $CERTS/kubelet-$node.key
containerRuntimeEndpoint: unix://$(node_runtime "$node")
cgroupDriver: cgroupfs
cgroupRoot: /davit-cluster/$node
failSwapOn: false
failCgroupV1: false
seccompDefault: true
podLogsDir: $dir/pod-logs
volumePluginDir: $dir/volume-plugins
clusterDomain: cluster.local
clusterDNS: [10.215.0.10]
resolvConf: $(resolver_file)
# These let it run where it may neither change certain kernel settings nor protect itself from the kernel's choice when memory
# is short (no CAP_SYS_RESOURCE), as in a user namespace.
featureGates: { KubeletInUserNamespace: true }
oomScoreAdj: 0
localStorageCapacityIsolation: false
# The host's disk is not this cluster's alone: neither are images removed nor pods evicted when it is rather full.
imageGCHighThresholdPercent: 100
evictionHard: { memory.available: 100Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%, imagefs.inodesFree: 0% }
END
}

write_proxy_config() {
    local node=$1 dir=$CLUSTER_DIR/$1
    cat > "$dir/kube-proxy.yaml" << END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: $POD_RANGE
clientConnection: { kubeconfig: $CERTS/kube-proxy.kubeconfig }
healthzBindAddress: $(node_address "$node"):10256
metricsBindAddress: $(node_address "$node"):10249
nodePortAddresses: [primary]
iptables: { localhostNodePorts: false }
# Zero leaves the kernel's own settings alone, which may not be writable.
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
END
}

# start_runtime <node>: its network and its container runtime, which need no API server.
start_runtime() {
    connect_node "$1"
    write_runtime_config "$1"
    start_containerd "$1"
    # What a node that was switched off left in its runtime's books. The part of it that knows of pods answers a moment after the rest.
    wait_for "end of an earlier run's pods" 30 "containerd-$1" "$BIN/kubernetes" end-pods -runtime "$(node_runtime "$1")"
}
start_containerd() {
    node_part "$1" containerd env "PATH=$BIN:$PATH" "$(command -v containerd)" --config "$CLUSTER_DIR/$1/containerd.toml"
    wait_for 'answer from containerd' 20 "containerd-$1" "$BIN/ctr" --address "$(node_runtime "$1")" version
}

# start_kubelet <node> <zone>: needs the API server.
start_kubelet() {
    local node=$1 zone=$2
    make_cgroups "$node"
    write_kubelet_config "$node"
    write_proxy_config "$node"
    node_part "$node" kubelet "$BIN/kubelet" --config "$CLUSTER_DIR/$node/kubelet.yaml" --kubeconfig "$CERTS/kubelet-$node.kubeconfig" \
        --root-dir "$CLUSTER_DIR/$node/kubelet" --cert-dir "$CLUSTER_DIR/$node/kubelet-certs" --node-ip "$(node_address "$node")" \
        --hostname-override "$node" --node-labels "topology.kubernetes.io/zone=$zone,topology.kubernetes.io/region=davit"
    node_part "$node" kube-proxy "$BIN/kube-proxy" --config "$CLUSTER_DIR/$node/kube-proxy.yaml" --hostname-override "$node"
}

# await_node <node>: until it is ready and enforces network policies. The bridge between pods does not; of kube-router only the part
# that does is used. It wants the node to be known.
await_node() {
    local node=$1
    wait_for 'ready node' 60 "kubelet-$node" node_is_ready "$node"
    node_part "$node" kube-router "$BIN/kube-router" --kubeconfig "$CERTS/kube-router.kubeconfig" --hostname-override "$node" \
        --run-firewall=true --run-router=false --run-service-proxy=false --service-cluster-ip-range "$SERVICE_RANGE" \
        --enable-cni=false --health-port 0 --iptables-sync-period 1m
    wait_for 'rules for network policies' 30 "kube-router-$node" in_node "$node" iptables --wait -n -L KUBE-NWPLCY-DEFAULT
}

# import_images <node>: those that the cluster itself needs.
import_images() {
    local tar
    for tar in "$BIN"/*.tar; do images_of "$1" import "$tar" > /dev/null; done
}

# kill_pods <node>: all that runs in them, at once.
kill_pods() {
    local root pid
    while read -r root; do
        [[ -d $root/davit-cluster/$1 ]] || continue
        while read -r pid; do kill -KILL "$pid" 2> /dev/null || true; done \
            < <(find "$root/davit-cluster/$1" -name cgroup.procs -exec cat {} + 2> /dev/null | sort -u)
    done < <(cgroup_roots)
}

# stop_node <node>: ends its pods and its parts, and takes its network away, with all the rules that were made in it.
stop_node() {
    local node=$1
    stop_parts 10 "kubelet-$node" "kube-proxy-$node" "kube-router-$node"
    # Pods live on when their runtime is killed, and only it ends them as they should be.
    if ! part_alive "containerd-$node" && mountpoint -q "$(node_network "$node")"; then
        rm -f "$PIDS/containerd-$node.pid"
        (start_containerd "$node") || true
    fi
    if part_alive "containerd-$node"; then
        # One that was only about to start is ended by nobody else.
        "$BIN/kubernetes" end-pods -runtime "$(node_runtime "$node")" 2> /dev/null ||
            { kill_pods "$node"; "$BIN/kubernetes" end-pods -runtime "$(node_runtime "$node")"; } || note "  some pods of $node did not end as they should"
    fi
    stop_parts 10 "containerd-$node"
    disconnect_node "$node"
}

# unmount_below <folder>: what pods had mounted; deepest first. A path in this table has its spaces as \040.
unmount_below() {
    local point
    while read -r point; do umount "$point" 2> /dev/null || umount -l "$point" || true; done \
        < <(awk -v under="$1/" 'index($5, under) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
}

# remove_cgroups [node]: those of a node, or of all of them.
remove_cgroups() {
    local root group
    while read -r root; do
        group=$root/davit-cluster${1:+/$1}
        [[ ! -d $group ]] || find "$group" -depth -type d -exec rmdir {} +
    done < <(cgroup_roots)
}

node_is_ready() { [[ $(admin get node "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]; }
