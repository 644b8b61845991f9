"""What a checkout measures and the package does not: rivals on the same work, and load over HTTP.

    python -m benchmarks decode --model DIR --against transformers

from the checkout's root. Programs, turns, rates and reports are those of griffin.bench. Here are
the programs of others, a file each that only its own process imports (`with_...`), the file that
llama.cpp reads (`gemma_gguf`), and the server beside its engine (`serve`).
"""
