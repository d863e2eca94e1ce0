"""A rendered landscape: the source that needs no download."""
