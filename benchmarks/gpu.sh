#!/bin/sh
# Measure what `griffin bench gpu` has rows for. From the checkout's root, on a machine with
# one: nothing has to be built or downloaded, and the tree is all that is needed.
#
#   sh benchmarks/gpu.sh OUT              # OUT: a folder for the reports
#   sh benchmarks/gpu.sh OUT --dry-run    # the same commands on the CPU, at toy shapes
#
# Needs torch 2.11 or later with CUDA, Triton 3.6 or later, click, rich, numpy and safetensors.
# Takes 420 seconds at most, the rows of worth first, and 210 more beside transformers, gemlite,
# fla-core and torch's flash attention, where they are installed: bring them along as wheels.
set -eu
out=$1
shift
export PYTHONPATH=. PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
mkdir -p "$out"

# The table of a command, kept and shown; its exit code is ours.
kept() {
  table=$1
  shift
  code=0
  "$@" >"$table" || code=$?
  cat "$table"
  return "$code"
}

failed=0
kept "$out/gpu.txt" "$python" -m griffin.cli bench gpu --out "$out/gpu.json" "$@" || failed=$?
kept "$out/rivals.txt" "$python" -m benchmarks gpu --budget 210 --out "$out/rivals.json" "$@" ||
  failed=$?
exit "$failed"
