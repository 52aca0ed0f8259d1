"""The other side of the alignment: torch and Transformers, written from the paper's formulas. Imports nothing of the project."""
