#!/usr/bin/env bash
# The long proof of what davit promises: a million lives of the queue's rules, then davit under load while everything
# around it is broken by chance. What it does and what came of it: docs/reliability.md. Results: tests/campaign/results/.
# Sizes, with the long ones as defaults: DAVIT_CAMPAIGN_JOBS, _SCHEDULES, _KILLS, _GATEWAYS, DAVIT_MODEL_SEEDS (0 leaves the
# rules out). DAVIT_E2E_SEED repeats a campaign; DAVIT_BIN names another build than the debug one.
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

scripts/setup-packages.sh rust cc postgres faketime
scripts/setup-docker.sh
scripts/build-agent.sh
scripts/images.sh python3.13
[[ -n ${DAVIT_BIN:-} ]] || cargo build --quiet --bin davit
campaign=$(cargo test -p davit-e2e --test campaign --no-run 2>&1 | tee "$WORK_DIR/campaign-build.log" | sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
[[ -x $campaign ]] || { tail -n 20 "$WORK_DIR/campaign-build.log" >&2; fail "the campaign was not built"; }

export DAVIT_MODEL_SEEDS=${DAVIT_MODEL_SEEDS:-1000000}
if [[ $DAVIT_MODEL_SEEDS != 0 ]]; then
    # The rules need nothing but the standard library, so optimising them takes seconds and no second build of the rest.
    rustc --edition 2024 -O --test registry/tests/model/main.rs -o "$WORK_DIR/model"
    say "the queue's rules: $DAVIT_MODEL_SEEDS lives"
    "$WORK_DIR/model" --nocapture
fi

export DAVIT_CAMPAIGN_JOBS=${DAVIT_CAMPAIGN_JOBS:-100000} DAVIT_CAMPAIGN_SCHEDULES=${DAVIT_CAMPAIGN_SCHEDULES:-1000}
export DAVIT_CAMPAIGN_KILLS=${DAVIT_CAMPAIGN_KILLS:-500} DAVIT_CAMPAIGN_GATEWAYS=${DAVIT_CAMPAIGN_GATEWAYS:-3}
# In place of this shell, so that an interrupt reaches it and it can take everything down.
exec "$campaign" --nocapture --exact whatever_breaks_nothing_promised_is_lost_doubled_or_out_of_order
