#!/bin/bash
# VNN-COMP: prepare_instance.sh v1 CATEGORY ONNX VNNLIB — checks that both files are there; nothing is computed.
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "expected v1 as first argument, got '${1:-}'" >&2; exit 1; }
for file in "${3:?the network is missing}" "${4:?the query is missing}"; do
    [ -r "$file" ] || { echo "cannot read $file" >&2; exit 1; }
done
