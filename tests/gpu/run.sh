#!/bin/sh
# Run the GPU suite: tests/gpu/run.sh [--quick] OUT
#
# PYTHON names an interpreter that has everything installed. Without it python3 is used, and the wheels of
# tests/gpu/fetch.sh that it lacks are installed into a temporary folder. The report is in OUT: summary.md, summary.json,
# steps.jsonl and log.txt. The exit code is not 0 if a step failed.
set -eu
case $# in
  1 | 2) ;;
  *) echo "usage: $0 [--quick] OUT" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/../.." && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
path=$root
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  "$PYTHON" "$root/tests/gpu/missing_wheels.py" > "$work/wheels"
  "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check \
    --target "$work/site" --requirement "$work/wheels"
  path=$root:$work/site
fi
export PYTHONPATH="$path" TMPDIR="$work"
"$PYTHON" -m tests.gpu.suite --work "$work/suite" "$@"
