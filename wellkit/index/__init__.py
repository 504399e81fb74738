"""Where every chunk of every array lies in a shard: built once, kept beside the data, read without libhdf5."""
