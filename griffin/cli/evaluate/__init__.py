"""`griffin evaluate`: measure a model, each way of it in a file of its own."""
