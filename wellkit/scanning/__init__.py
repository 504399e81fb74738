"""One pass over every frame of a dataset: what statistics and validation both go by."""
