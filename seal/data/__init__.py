"""From a source (a new one is a module of `sources`) to pairs of patch and spot, by folds of donors."""
