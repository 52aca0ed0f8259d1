"""Raw text to token arrays: readers, tokenisation, the memory-mapped cache, sample order, masking. Imports no Paddle."""
