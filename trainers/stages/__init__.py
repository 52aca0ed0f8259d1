"""A stage on one rank: the runner is the same for all, what is particular to a task is its work."""
