"""Where a job runs: nodes, the way to start a program on one, ports and processes. Imports no Paddle and nothing of
the launcher."""
