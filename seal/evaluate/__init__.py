"""Embeddings in, tidy tables out. `methods` is the one list of what is compared; a new baseline is a line in it."""
