"""The encoder, its heads, and reading and writing of weights."""
