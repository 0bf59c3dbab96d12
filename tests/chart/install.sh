#!/usr/bin/env bash
# davit installed by its chart on the cluster that KUBECONFIG leads to, used, upgraded under load and removed again. One line for each
# thing that was tried. Usage: tests/chart/install.sh
# Images come from the local engine: DAVIT_CLUSTER_REGISTRY is where this host pushes them (`scripts/cluster.sh env` says it for the test
# cluster), DAVIT_IMAGE_PULL_REGISTRY what nodes call it. DAVIT_CLUSTER_POLICIES=enforced says that its network enforces NetworkPolicies.
# DAVIT_EARLIER_IMAGE names an image of an earlier davit to begin with and to go back to; without it, each revision is the same davit.
# DAVIT_PROBE_RATE (100) and DAVIT_PROBE_CALLERS (8): calls a second during the upgrade, and at a time. Two cores and a release build bear 120 and 16.
source "$(dirname "$0")/../../scripts/lib.sh"
cd "$ROOT"

NAMESPACE=chart-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
RELEASE=davit
CHART=$ROOT/charts/davit
LOG=$WORK_DIR/chart-install.log
VALUES=$WORK_DIR/chart-images.yaml
FAILED=0
: "${KUBECONFIG:?which cluster? For the test cluster: eval \"\$(scripts/cluster.sh env)\"}" "${DAVIT_CLUSTER_REGISTRY:?}"
HELM=$(scripts/helm.sh)
DAVIT=${DAVIT_BIN:-$ROOT/target/release/davit}

k() { kubectl --namespace "$NAMESPACE" "$@"; }
helm() { command "$HELM" --namespace "$NAMESPACE" "$@"; }
# try <what> <command...>: runs it; the line says how it went, and the log shows what it said if it failed.
try() {
    local what=$1 begun=$SECONDS
    shift
    if "$@" > "$LOG" 2>&1; then
        printf 'ok - %s (%d s)\n' "$what" $((SECONDS - begun))
        # What was measured.
        grep '^# ' "$LOG" || true
    else
        printf 'not ok - %s (%d s)\n' "$what" $((SECONDS - begun))
        sed 's/^/  # /' "$LOG" | tail -n 30
        FAILED=1
    fi
}
# until_true <seconds> <command...>
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.5
    done
}
clean_up() {
    kubectl delete namespace "$NAMESPACE" --wait=false > /dev/null 2>&1 || true
    rm -f "$VALUES"
}
trap clean_up EXIT

DAVIT_IMAGE_VALUES=$VALUES DAVIT_IMAGE_PULL_REGISTRY=${DAVIT_IMAGE_PULL_REGISTRY:-$DAVIT_CLUSTER_REGISTRY} \
    scripts/push-images.sh "$DAVIT_CLUSTER_REGISTRY" python3.13 provided > "$LOG"
docker tag davit/postgres:latest "$DAVIT_CLUSTER_REGISTRY/davit/postgres:17"
docker push --quiet "$DAVIT_CLUSTER_REGISTRY/davit/postgres:17" > /dev/null
pull=${DAVIT_IMAGE_PULL_REGISTRY:-$DAVIT_CLUSTER_REGISTRY}
python=$(sed -n 's/.*runtime-python3.13, digest: "\(.*\)"}/\1/p' "$VALUES")

settings=(--values "$VALUES" --values "$ROOT/tests/chart/small.yaml" --set "postgres.bundled.image.registry=$pull,images.plainHttpRegistries={$pull}")

earlier=()
if [[ -n ${DAVIT_EARLIER_IMAGE:-} ]]; then
    docker tag "$DAVIT_EARLIER_IMAGE" "$DAVIT_CLUSTER_REGISTRY/davit/davit:earlier"
    docker push "$DAVIT_CLUSTER_REGISTRY/davit/davit:earlier" > "$LOG"
    earlier=(--set "images.davit.digest=$(sed -n 's/.*digest: \(sha256:[0-9a-f]*\).*/\1/p' "$LOG")")
fi

function_pods() { k get pods --selector app.kubernetes.io/managed-by=davit --output name; }
may() { [[ $(kubectl auth can-i "$@" --as "system:serviceaccount:$NAMESPACE:davit-controller") == yes ]]; }
may_not() { ! may "$@"; }

# start_pod <name> <script> <variable...>: a pod beside davit that runs one of the scripts here, with these variables, as YAML has them.
start_pod() {
    local name=$1 script=$2
    shift 2
    k apply --filename - <<- POD
		apiVersion: v1
		kind: Pod
		metadata: {name: $name}
		spec:
		  restartPolicy: Never
		  automountServiceAccountToken: false
		  terminationGracePeriodSeconds: 20
		  securityContext: {runAsNonRoot: true, runAsUser: 993, seccompProfile: {type: RuntimeDefault}}
		  containers:
		    - name: $name
		      image: $pull/davit/runtime-python3.13@$python
		      command: [python3, -u, -c]
		      args: [$(python3 -c 'import json, sys; print(json.dumps(open(sys.argv[1]).read()))' "tests/chart/$script")]
		      env: [$(printf '%s, ' "$@")]
		      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
	POD
}
# It calls a function through the service as long as it lives, and says at the end how often that failed.
start_prober() {
    start_pod prober prober.py '{name: TARGET, value: "http://davit-gateway/default/steady/"}' \
        "{name: RATE, value: '${DAVIT_PROBE_RATE:-100}'}" "{name: CALLERS, value: '${DAVIT_PROBE_CALLERS:-8}'}"
}
probing() { k logs prober 2> /dev/null | grep -q '^first answer'; }
stop_prober() {
    k exec prober -- python3 -c 'import os, signal; os.kill(1, signal.SIGTERM)' || true
    k wait --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s pod/prober
    k logs prober
}
prober_was_answered() {
    local told
    stop_prober
    told=$(k logs prober | grep -E '^[0-9]+ calls')
    printf '# %s\n' "$told"
    [[ $told == [1-9]*' 0 failed' ]] || { k logs --prefix --tail 40 --selector app.kubernetes.io/component=gateway; return 1; }
}
# kill_one <component>: one of its pods, at once; then there are as many as before again.
kill_one() {
    k delete --grace-period=0 --force "$(k get pods --selector "app.kubernetes.io/component=$1" --output name | shuf -n 1)"
    k rollout status "deployment/davit-$1" --timeout=120s
}
# Pods of davit die while calls are handed to the queue.
accepted_work_is_done() {
    local component told
    start_pod clerk clerk.py '{name: JOBS, value: "400"}' '{name: TOKEN, valueFrom: {secretKeyRef: {name: davit-admin-token, key: token}}}'
    until_true 60 eval 'k logs clerk 2> /dev/null | grep -q ^begins'
    for component in gateway controller gateway controller; do kill_one "$component" || return; done
    k wait --for=jsonpath='{.status.phase}'=Succeeded --timeout=180s pod/clerk || return
    told=$(k logs clerk | grep accepted)
    printf '# %s\n' "$told"
    k logs clerk
    [[ $told == [1-9]*' 0 not done' ]]
}
# From this machine, as the notes of the installation say it.
deploy_steady() {
    k port-forward service/davit-controller 17481:80 &
    local forward=$! status=0
    until_true 20 curl --silent --output /dev/null http://127.0.0.1:17481/ || status=1
    # A registry that is slow for a moment is a reason to ask again, as the answer says.
    DAVIT_URL=http://127.0.0.1:17481 DAVIT_TOKEN=$(k get secret davit-admin-token --output go-template='{{index .data "token" | base64decode}}') \
        until_true 60 "$DAVIT" deploy "$ROOT/tests/chart/steady" || status=1
    kill "$forward"
    return "$status"
}
owned() {
    local owner=$(k get configmap davit-instances --output jsonpath='{.metadata.uid}') owners
    owners=$(k get pods --selector app.kubernetes.io/managed-by=davit --output jsonpath='{range .items[*]}{.metadata.ownerReferences[*].uid}{"\n"}{end}' | sort -u)
    [[ -n $owners && $owners == "$owner" ]]
}
# The policies select pods of functions by these.
labelled() {
    local all chosen
    all=$(function_pods | wc -l)
    chosen=$(k get pods --output name --selector "app.kubernetes.io/managed-by=davit,app.kubernetes.io/instance=$RELEASE,app.kubernetes.io/component in (function,builder),davit.network in (egress,none)" | wc -l)
    [[ $all -gt 0 && $all == "$chosen" ]]
}
# reached <expected> <host> <port>: from the prober's pod, or, with function_reached, from a function's.
reached() {
    local found
    found=$(k exec prober -- python3 -c 'import socket, sys
try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close(); print("yes")
except OSError: print("no")' "$2" "$3")
    printf '%s:%s from a pod beside davit: %s\n' "$2" "$3" "$found"
    [[ $found == "$1" ]]
}
function_reached() {
    local found
    found=$(k exec prober -- python3 -c 'import sys, urllib.request
said = urllib.request.urlopen("http://davit-gateway/default/steady/?to=" + sys.argv[1], timeout=20).read()
print("yes" if said == b"reached" else "no")' "$2:$3")
    printf '%s:%s from a function: %s\n' "$2" "$3" "$found"
    [[ $found == "$1" ]]
}
pod_address() { k get pods --selector "$1" --output jsonpath='{.items[0].status.podIP}'; }
# A few lines of the table in test_network.py, as the cluster's own network sees them.
policies_hold() {
    local gateway function wrong=0
    gateway=$(pod_address app.kubernetes.io/component=gateway)
    function=$(pod_address app.kubernetes.io/managed-by=davit)
    reached yes davit-gateway 80 || wrong=1
    reached yes davit-controller 80 || wrong=1
    reached no "$gateway" 7482 || wrong=1
    reached no "$gateway" 7484 || wrong=1
    reached no davit-postgres 5432 || wrong=1
    reached no "$function" 9000 || wrong=1
    function_reached no "$(k get service davit-controller --output jsonpath='{.spec.clusterIP}')" 80 || wrong=1
    function_reached no "$(pod_address app.kubernetes.io/component=postgres)" 5432 || wrong=1
    function_reached no "$gateway" 7482 || wrong=1
    function_reached no "$(kubectl get service kubernetes --namespace default --output jsonpath='{.spec.clusterIP}')" 443 || wrong=1
    function_reached no "$(k get pods --selector app.kubernetes.io/managed-by=davit --output jsonpath='{.items[0].status.hostIP}')" 10250 || wrong=1
    function_reached no 169.254.169.254 80 || wrong=1
    neighbours_are_apart || wrong=1
    return "$wrong"
}
# Pods of other functions and of the pools, whichever of its own instances the call comes to.
neighbours_are_apart() {
    local pod met=0
    for pod in $(k get pods --selector app.kubernetes.io/managed-by=davit --output jsonpath='{.items[*].status.podIP}'); do
        function_reached no "$pod" 9000 || return
        met=$((met + 1))
    done
    [[ $met -ge 2 ]]
}
rights() {
    may create pods --namespace "$NAMESPACE" && may get configmaps/davit-instances --namespace "$NAMESPACE" || return
    may_not get secrets --namespace "$NAMESPACE" && may_not get configmaps/davit-kubernetes --namespace "$NAMESPACE" || return
    may_not create pods --subresource exec --namespace "$NAMESPACE" && may_not create deployments --namespace "$NAMESPACE" && may_not list pods --namespace kube-system
}
no_pods() { [[ -z $(k get pods --output name | grep -Ev '^pod/(prober|clerk)$') ]]; }
kept() { k get secret davit-master-key > /dev/null; }

kubectl create namespace "$NAMESPACE" > /dev/null
kubectl label namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted > /dev/null

try 'it is installed, and two gateways and two controllers become ready' helm install "$RELEASE" "$CHART" "${settings[@]}" "${earlier[@]}" --wait --timeout 5m
try 'helm test: a function is deployed, called and deleted' helm test "$RELEASE" --logs --timeout 10m
try 'a function is deployed from this machine' deploy_steady
try 'it answers at the service' eval 'start_prober && until_true 120 probing'
try 'its pods belong to the ConfigMap of the release' owned
try 'its pods have the labels that the policies select' labelled
try 'the controller may do what it has to and no more' rights
if [[ ${DAVIT_CLUSTER_POLICIES:-} == enforced ]]; then
    try "NetworkPolicies hold in the cluster's network" policies_hold
fi
key=$(k get secret davit-master-key davit-admin-token --output jsonpath='{.items[*].data}')
try 'it is upgraded' helm upgrade "$RELEASE" "$CHART" "${settings[@]}" --set gateway.podAnnotations.upgraded=yes,controller.podAnnotations.upgraded=yes --wait --timeout 5m
try 'keys and tokens are what they were' test "$(k get secret davit-master-key davit-admin-token --output jsonpath='{.items[*].data}')" = "$key"
try 'helm test says so, too' helm test "$RELEASE" --timeout 10m
try 'it is rolled back' helm rollback "$RELEASE" 1 --wait --timeout 5m
try 'no call failed meanwhile' prober_was_answered
try 'pods of davit are killed, and all that was accepted is done' accepted_work_is_done
try 'it is removed' helm uninstall "$RELEASE" --wait --timeout 3m
try 'no pod is left' until_true 60 no_pods
try 'the master key is' kept
exit "$FAILED"
