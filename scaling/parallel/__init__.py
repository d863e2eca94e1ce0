"""Meshes, shardings derived from axis names, and the start of a multi-host program."""
