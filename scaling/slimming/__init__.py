"""Narrower and shallower networks out of trained ones: trees in, smaller trees out, on any tree with axis names."""
