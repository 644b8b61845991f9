"""Speed and memory, each beside its limit.

Every program that is timed runs in a process of its own (`worker`, which `process` starts and
asks), and they take turns: ours, and what else a run is handed (`program`). `run` holds them
together, `suites` decides what they do and in which order; `rates` measures what the machine can do
in the same run, `work` counts what a token costs at least. The side that asks imports no torch.
"""
