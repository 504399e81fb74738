"""Whether a tree of shards is what its format and its card say, and whether its data can be trusted."""
