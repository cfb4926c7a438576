"""Whole slides: regions of any image, tissue, a grid of patches over it, TRIDENT's files."""
