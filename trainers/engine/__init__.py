"""The one training loop and what it stands on: ranks, mixed precision, checkpoints, evaluation, records."""
