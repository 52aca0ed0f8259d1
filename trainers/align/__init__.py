"""Numeric alignment with Transformers on PyTorch: the same weights, batches and settings on both sides, every number compared.

This side runs the code that trains (model, tasks, loop, optimizer, evaluation). The other side, `reference/`, runs in a process and an
environment of its own and knows the paper's formulas, torch and Transformers only. They meet in a directory of JSON and safetensors files.
"""
