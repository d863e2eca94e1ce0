"""Depth, width and branches of an encoder under one budget, without labels."""
