#!/bin/sh
# Measure what `griffin bench gpu` has rows for. From the checkout's root, on a machine with
# one: nothing has to be built or downloaded, and the tree is all that is needed.
#
#   sh benchmarks/gpu.sh OUT              # OUT: a folder for the reports
#   sh benchmarks/gpu.sh OUT --dry-run    # the same commands on the CPU, at toy shapes
#   sh benchmarks/gpu.sh OUT rest rivals  # some of its three parts, where time is short
#
# Needs torch 2.11 or later with CUDA, Triton 3.6 or later, click, rich, numpy and safetensors.
# Its parts: `gpu`, 420 seconds at most, the rows of worth first; `rest`, 240 more for the rows that
# found no time there (9B, a million tokens, the sanitizer) or failed; `rivals`, 210 beside
# transformers, gemlite, fla-core and torch's flash attention, where they are installed: bring them
# along as wheels.
set -eu
out=$1
shift
parts=
while [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; do
  case $1 in
    gpu | rest | rivals) parts="$parts $1" ;;
    *) echo "there is no part $1: the parts are gpu, rest, rivals" >&2 && exit 2 ;;
  esac
  shift
done
export PYTHONPATH=. PYTHONUNBUFFERED=1
python=${PYTHON:-python3}
mkdir -p "$out"

# A part's command, its table kept and shown; a failure is told at the end and stops no other part.
failed=0
kept() {
  part=$1
  shift
  case "${parts:- gpu rest rivals} " in *" $part "*) ;; *) return 0 ;; esac
  code=0
  "$python" -m "$@" --out "$out/$part.json" >"$out/$part.txt" || code=$?
  cat "$out/$part.txt"
  [ "$code" = 0 ] || failed=$code
}

kept gpu griffin.cli bench gpu "$@"
kept rest griffin.cli bench gpu --rest "$out/gpu.json" --budget 240 "$@"
kept rivals benchmarks gpu --budget 210 "$@"
exit "$failed"
