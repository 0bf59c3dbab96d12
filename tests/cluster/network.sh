# shellcheck shell=bash
# What the cluster adds to the host's network, and takes away again. Sourced, not run. Bash.
#
# A node, also the first, lives in a network namespace. So the rules of kube-proxy and of whatever enforces network policies are never
# among the host's, where a container engine and others keep theirs, and they are gone when the node is.

# A chain of its own in two tables. An engine on the same host lets nothing be forwarded that it does not know; its own rules come first.
network_up() {
    ip link show "$NODE_BRIDGE" > /dev/null 2>&1 || ip link add "$NODE_BRIDGE" type bridge
    ip address replace "$HOST_ADDRESS/24" dev "$NODE_BRIDGE"
    ip link set "$NODE_BRIDGE" up
    sysctl -qw net.ipv4.ip_forward=1
    # Rules see what passes between pods of one node only with this part of the kernel, which may be a module.
    [[ -e /proc/sys/net/bridge ]] || modprobe br_netfilter
    iptables-restore --wait --noflush << END
*filter
:DAVIT-CLUSTER - [0:0]
-A DAVIT-CLUSTER -s $CLUSTER_RANGE -j ACCEPT
-A DAVIT-CLUSTER -d $CLUSTER_RANGE -j ACCEPT
-A FORWARD -j DAVIT-CLUSTER
COMMIT
*nat
:DAVIT-CLUSTER - [0:0]
-A DAVIT-CLUSTER -s $CLUSTER_RANGE ! -d $CLUSTER_RANGE -j MASQUERADE
-A POSTROUTING -j DAVIT-CLUSTER
COMMIT
END
}

network_down() {
    local table parent
    for table in filter:FORWARD nat:POSTROUTING; do
        parent=${table#*:} table=${table%:*}
        iptables --wait -t "$table" -n -L DAVIT-CLUSTER > /dev/null 2>&1 || continue
        while iptables --wait -t "$table" -D "$parent" -j DAVIT-CLUSTER 2> /dev/null; do :; done
        iptables --wait -t "$table" -F DAVIT-CLUSTER
        iptables --wait -t "$table" -X DAVIT-CLUSTER
    done
    ip link delete "$NODE_BRIDGE" 2> /dev/null || true
}

# connect_node <node>: a cable from the node's network to the bridge that the host's address is on; each routes the others' pods.
# Services are reached from the host by way of the first node.
connect_node() {
    local node=$1 number=${1#node-} network other
    network=$(node_network "$node")
    mkdir -p "$(dirname "$network")"
    touch "$network"
    unshare --net="$network" true
    ip link add "dvk-$node" type veth peer name eth0 netns "$network"
    ip link set "dvk-$node" master "$NODE_BRIDGE" up
    in_node "$node" sh -euc '
        ip link set lo up
        ip address add "$1/24" dev eth0
        ip link set eth0 up
        ip route add default via "$2"
        sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1' sh "$(node_address "$node")" "$HOST_ADDRESS"
    for other in 1 2; do
        [[ $other == "$number" ]] || in_node "$node" ip route add "10.214.$other.0/24" via "10.213.0.$other"
    done
    ip route replace "10.214.$number.0/24" via "$(node_address "$node")"
    [[ $node != node-1 ]] || ip route replace "$SERVICE_RANGE" via "$(node_address "$node")"
}

disconnect_node() {
    ip link delete "dvk-$1" 2> /dev/null || true
    umount "$(node_network "$1")" 2> /dev/null || true
}
