#!/bin/sh
# Measure what `griffin bench gpu` has rows for. From the checkout's root, on a machine with
# one: nothing has to be built or downloaded, and the tree is all that is needed.
#
#   sh benchmarks/gpu.sh OUT              # OUT: a folder for the reports
#   sh benchmarks/gpu.sh OUT --dry-run    # the same commands on the CPU, at toy shapes
#
# Needs torch 2.11 or later with CUDA, Triton 3.6 or later, click, rich, numpy and safetensors.
# Takes 420 seconds at most, the rows of worth first, and 120 more beside transformers, where that
# is installed: bring it along as a wheel.
set -eu
out=$1
shift
export PYTHONPATH=. PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
mkdir -p "$out"

$python -m griffin.cli bench gpu --out "$out/gpu.json" "$@" | tee "$out/gpu.txt"
$python -m benchmarks gpu --budget 120 --out "$out/rivals.json" "$@" | tee "$out/rivals.txt"
