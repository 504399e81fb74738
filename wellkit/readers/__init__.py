"""A window of an array into the caller's buffer, one file per storage kind."""
