"""Reward against divergence for J-BOND, REINFORCE, GRPO and best-of-N, on tasks made by program."""
