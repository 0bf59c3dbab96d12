#!/usr/bin/env bash
# Prints what a cluster may leave on a host: run before a cluster is started and after it was ended, it must print the same.
# What the container engine comes and goes with meanwhile is left out. Usage: tests/cluster/footprint.sh
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"

echo '== processes that were started for it'
for folder in /proc/[0-9]*; do
    { line=$(tr '\0' ' ' < "$folder/cmdline"); } 2> /dev/null || continue
    if [[ $line == *"$CLUSTER_DIR/"* || $line == *"$RUN_DIR/"* ]] || grep -q davit-cluster "$folder/cgroup" 2> /dev/null; then
        [[ ${folder#/proc/} == "$$" ]] || echo "$line" | cut -c1-120
    fi
done
echo '== mounts'
awk '{ print $5 }' /proc/self/mountinfo | grep -vE '^/(var/lib/docker|run/docker|var/run/docker)/|/davit[^/]*/(instances|tasks)(/|$)' | sort
echo '== interfaces'
ip -o link | awk '{ print $2, ($0 ~ / master /) ? "in a bridge" : "alone" }' | grep -vE '^(veth[^ ]* in a bridge|docker|br-|davit-)' | sort
echo '== network namespaces'
ip netns list | sort
echo '== routes'
ip -4 route | grep -vE ' dev (docker|br-|davit-)' | sort
for command in iptables ip6tables; do
    echo "== $command"
    for table in filter nat mangle raw; do
        "$command-save" -t "$table" 2> /dev/null | grep -E '^[:-]' | sed 's/ \[.*//' | grep -viE 'docker|davit-[0-9a-f]{8}|172\.[0-9]+\.' || true
    done
done
echo '== control groups'
while read -r root; do find "$root" -maxdepth 1 -type d | grep -vE '/docker$' | sort; done < <(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/mounts | sort)
echo '== folders'
ls -d /run/davit-cluster /run/netns /var/log/containers /var/log/pods /var/lib/kubelet /var/lib/cni /usr/libexec/kubernetes 2> /dev/null || true
