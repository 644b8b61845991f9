"""Measure a model: lm-eval's tasks in process, texts by position, and what it recalls."""
