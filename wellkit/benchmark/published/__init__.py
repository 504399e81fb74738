"""Tables of scores that others published, as they printed them."""
