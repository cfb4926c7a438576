"""From a source (`hest`, `her2st`; a new one is a module like these) to pairs of patch and spot, by folds of donors."""
