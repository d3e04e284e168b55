#!/bin/bash
# VNN-COMP: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT — one instance through relugap verify.
# RESULTS gets sat, unsat, unknown, timeout or error in its first line, after sat the point.
set -uo pipefail
[ "${1:-}" = v1 ] || { echo "expected v1 as first argument, got '${1:-}'" >&2; exit 1; }
network=${3:?the network is missing} query=${4:?the query is missing}
results=${5:?the results file is missing} timeout=${6:?the timeout is missing}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
relugap=${RELUGAP:-$here/.venv/bin/relugap}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
rm -f "$results"
"$relugap" verify "$query" --network "$network" --timeout "$timeout" --as-real --results "$results" || {
    echo error > "$results"
    exit 1
}
sed -i '1s/^timed-out$/timeout/' "$results"
