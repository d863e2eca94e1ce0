"""Names and shapes to numbers of parameters and operations."""
