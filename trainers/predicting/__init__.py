"""New texts in, labels and probabilities out, as streams."""
