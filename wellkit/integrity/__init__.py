"""Whether a dataset on disk is what it should be: its manifest, verification and repair."""
