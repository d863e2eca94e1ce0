"""A checkpoint to an encoder and its features."""
