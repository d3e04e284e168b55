#!/bin/bash
# VNN-COMP: install_tool.sh v1 — relugap with the onnx extra, in an environment beside this file.
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "expected v1 as first argument, got '${1:-}'" >&2; exit 1; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python3 -m venv "$here/.venv"
"$here/.venv/bin/pip" install --constraint "$here/../../constraints.txt" "$here/../..[onnx]"
