"""Training from scratch: recipe, corpus, tokenizer, packing, loss, optimiser, loop."""
