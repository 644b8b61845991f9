"""Claims of the Griffin paper that need little training, each a command with its seeds."""
