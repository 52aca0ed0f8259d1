"""The paper's tables: its figures (tables.json), a config per row (configs/paper/, written by `python -m launcher.paper`), and our own
figures beside them."""
