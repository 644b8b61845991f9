"""Programs that look for mistakes for as long as one likes, in no wheel: `python -m tools.NAME`."""
