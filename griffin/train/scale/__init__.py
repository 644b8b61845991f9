"""Training on several processes: who they are, what each holds, how they agree."""
