"""Sources: one file each, which writes samples in the HEST-1k layout."""
