#!/usr/bin/env bash
# Shows that the running test cluster does what a Kubernetes does: one line `ok` or `not ok` for each thing. Everything is in a
# namespace of its own, which is removed at the end. Usage: tests/cluster/smoke.sh
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"
need_cluster

SPACE=smoke-$$
FAILED=0
trap 'admin delete namespace "$SPACE" --ignore-not-found --wait=false > /dev/null' EXIT
k() { admin --namespace "$SPACE" "$@"; }

# shows <what> <pattern> <command...>: the command's output, errors included, holds the pattern.
shows() {
    local what=$1 pattern=$2 output
    shift 2
    output=$("$@" 2>&1) || true
    if grep -qE -- "$pattern" <<< "$output"; then
        echo "ok - $what"
    else
        echo "not ok - $what: expected /$pattern/, got: $output"
        FAILED=1
    fi
}
# becomes <what> <pattern> <command...>: the same, within 20 seconds; for what takes effect by and by.
becomes() {
    local until=$((SECONDS + 20))
    until grep -qE -- "$2" <<< "$("${@:3}" 2>&1 || true)" || [[ $SECONDS -ge $until ]]; do :; done
    shows "$@"
}
# refuses <what> <pattern> <command...>: the command is refused, with that reason.
refuses() {
    local what=$1 pattern=$2 output
    shift 2
    if output=$("$@" 2>&1); then
        echo "not ok - $what: it was not refused"
        FAILED=1
    elif ! grep -qE -- "$pattern" <<< "$output"; then
        echo "not ok - $what: expected /$pattern/, got: $output"
        FAILED=1
    else
        echo "ok - $what"
    fi
}

# web <name> <node>: a deployment with one pod on that node, and its service. It keeps to the strictest of the standards for pods.
web() {
    k apply -f - > /dev/null << END
apiVersion: apps/v1
kind: Deployment
metadata: { name: $1 }
spec:
  selector: { matchLabels: { app: $1 } }
  template:
    metadata: { labels: { app: $1 } }
    spec:
      nodeSelector: { kubernetes.io/hostname: $2 }
      automountServiceAccountToken: false
      securityContext: { runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
      containers:
        - name: web
          image: $PROBE_IMAGE
          args: [serve]
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } }
          readinessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: $1 }
spec: { selector: { app: $1 }, ports: [{ port: 80, targetPort: 8080 }] }
END
}
pod_ip() { k get pod -l "app=$1" -o 'jsonpath={.items[0].status.podIP}'; }
# from <deployment> <probe's arguments...>: asks from inside its pod.
from() { k exec "deployment/$1" -- /probe "${@:2}"; }

nodes=$(admin get nodes -o name | sort)
admin create namespace "$SPACE" > /dev/null
admin label namespace "$SPACE" pod-security.kubernetes.io/enforce=restricted > /dev/null
web one node-1
other=node-1
[[ $nodes != */node-2* ]] || other=node-2
web two "$other"
shows 'a deployment becomes ready' 'successfully rolled out' k rollout status deployment/one --timeout=60s
shows 'it logs' '^serving as one-' k logs deployment/one
becomes 'a pod reaches itself by its service and the cluster DNS' '^one-' from one get "http://one.$SPACE.svc.cluster.local"
shows 'a short name is completed' '^10\.215\.' from one lookup one
shows 'kubernetes itself has a name' '^10\.215\.0\.1$' from one lookup kubernetes.default
shows 'the host reaches a pod' '^one-' "$BIN/probe" get "http://$(pod_ip one):8080"
becomes 'the host reaches a service' '^one-' "$BIN/probe" get "http://$(k get service one -o 'jsonpath={.spec.clusterIP}')"
shows 'a pod may not read what it has no role for' '^no' admin auth can-i list secrets --as "system:serviceaccount:$SPACE:default" -n "$SPACE"
refuses 'a namespace that is restricted refuses a pod that may run as root' 'violates PodSecurity "restricted' k run loose --image "$PROBE_IMAGE"
refuses 'nobody gets a privileged container' 'privileged.*(forbidden|disallowed|not allowed)|violates PodSecurity' \
    admin -n default run loose --image "$PROBE_IMAGE" --overrides '{"spec":{"containers":[{"name":"loose","image":"'"$PROBE_IMAGE"'","securityContext":{"privileged":true}}]}}'
shows 'the kubelet answers nobody without a name' '^401$' curl -sk -o /dev/null -w '%{http_code}' "https://$(node_address node-1):10250/pods"
shows 'a second pod is ready' 'successfully rolled out' k rollout status deployment/two --timeout=60s
if [[ $other == node-2 ]]; then
    shows 'a pod on the second node logs, too' '^serving as two-' k logs deployment/two
    shows 'the nodes are in different zones' '^zone-a zone-b$' admin get nodes -o 'jsonpath={.items[*].metadata.labels.topology\.kubernetes\.io/zone}'
fi
becomes "a pod reaches one on $other" '^two-' from one get "http://$(pod_ip two):8080"
becomes 'and back' '^one-' from two get "http://$(pod_ip one):8080"
becomes 'by service and DNS' '^one-' from two get "http://one.$SPACE"

k apply -f - > /dev/null << END
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: friends }
spec: { podSelector: { matchLabels: { app: one } }, policyTypes: [Ingress], ingress: [{ from: [{ podSelector: { matchLabels: { app: friend } } }] }] }
END
becomes 'a network policy keeps a pod from another' 'refused|deadline|Timeout' from two get "http://$(pod_ip one):8080"
becomes 'also by its service' 'refused|deadline|Timeout' from two get "http://one.$SPACE"
becomes 'it does so for nothing else' '^two-' from one get "http://two.$SPACE"
k patch networkpolicy friends --type merge -p '{"spec":{"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"two"}}}]}]}}' > /dev/null
becomes 'a policy that allows the other lets it through' '^one-' from two get "http://$(pod_ip one):8080"
exit "$FAILED"
