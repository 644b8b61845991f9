#!/bin/sh
# Measure everything that docs/benchmarks says about the CPU. From the checkout's root:
#
#   griffin convert --random recurrentgemma-2b random-2b
#   griffin quantize random-2b random-2b-int8 --format int8
#   sh benchmarks/cpu.sh random-2b GGUF_FOLDER
#
# Needs a machine with nothing else to do, 24 GB of memory, and the rivals: transformers,
# recurrentgemma, llama-cpp-python and gguf. Takes about three hours, most of it on the way to long
# contexts.
set -eu
model=$1
gguf=$2
benchmarks="python -m benchmarks"
out=docs/benchmarks
mkdir -p "$out"

griffin bench kernels --model "$model" --format int4 --length 512 --out "$out/kernels.json"
griffin bench load --model "$model" --context 2048 --format stored --format bf16-packed --rounds 5 \
    --out "$out/load.json"
$benchmarks decode --model "$model" --format bf16-packed --format int8 --format int4 --context 512 \
    --rounds 5 --against transformers --out "$out/decode.json"
$benchmarks decode --model "$model" --context 32 --tokens 4 --against recurrentgemma \
    --out "$out/decode-recurrentgemma.json"
$benchmarks decode --model "$model" --format int8 --format int4 --context 2048 --rounds 5 \
    --against llama.cpp --gguf "$gguf" --out "$out/decode-llama.cpp.json"
griffin bench batch --model "$model" --format int8 --batch 1 --batch 8 --context 512 \
    --out "$out/batch.json"
$benchmarks prefill --model "$model" --format bf16-packed --format int8 --format int4 --length 512 \
    --length 2048 --rounds 2 --against transformers --out "$out/prefill.json"
$benchmarks context --model "$model" --format int4 --context 512 --context 2048 --context 8192 \
    --context 16384 --rounds 3 --tokens 8 --against llama.cpp --gguf "$gguf" --patience 700 \
    --out "$out/context.json" --plot "$out/context.png"
griffin bench context --model "$model" --format int8 --context 2048 --context 16000 \
    --context 65536 --context 131072 --out "$out/context-long.json"
griffin bench context --model "$model" --format int8 --context 16000 --context 1000000 \
    --out "$out/context-million.json"
griffin bench context --model "$model" --format int8 --context 2048 --context 16000 \
    --out "$out/context-after-million.json"
griffin bench engine --model "$model-int8" --rounds 4 --tokens 16 --out "$out/engine.json"
griffin bench conversation --model "$model-int8" --length 20000 --follow-up 100 --cold-tokens 4096 \
    --rounds 1 --out "$out/conversation.json"
$benchmarks serve --model "$model-int8" --tokenizer griffin/data/nano --clients 1 --requests 1 \
    --rounds 16 --tokens 8 --prompt 8 --out "$out/serve.json"
$benchmarks offline --model "$model-int8" --tokenizer griffin/data/nano --tokens 128 \
    --prompts 200 --alone 10 --out "$out/offline.json"
$benchmarks serve --rounds 3 --clients 1 --clients 8 --clients 64 --out "$out/serve-nano.json"
