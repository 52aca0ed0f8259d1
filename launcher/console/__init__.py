"""What a person sees of a run: one live screen on a terminal, plain prefixed lines elsewhere, tables at the end."""
