#!/bin/sh
# Works the queue off on a Ray cluster: WORKERS=8 GPUS_PER_WORKER=0.25 ./job.sh
# From a machine that reaches the head's dashboard; `ray job list`, `ray job logs ID` and
# `ray job stop ID` look after it. More of nptwatch's options may follow.
set -eu
home=${CLUSTER_HOME:-/home/nptwatch} # where cluster.yaml puts it: the user's home on the head

# Ray gives a job that is stopped three seconds and kills it then; its workers may need
# worker.shutdown_seconds to hand back what they have in hand.
exec ray job submit \
    --address "${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}" \
    --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "90"}}' \
    --no-wait \
    -- "$home/nptwatch/bin/nptwatch" worker --ray auto --config "$home/nptwatch.toml" \
    --state-dir "$home/.local/state/nptwatch" \
    --workers "${WORKERS:-4}" --gpus-per-worker "${GPUS_PER_WORKER:-0.25}" --until-empty "$@"
