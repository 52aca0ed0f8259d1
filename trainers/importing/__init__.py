"""Weights from formats that are pickles, read by an interpreter that knows tensors and nothing else."""
