"""Heads for dense tasks: maps of features to a class for every pixel."""
