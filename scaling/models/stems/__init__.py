"""Patch embeddings of public models that use more than one matrix."""
