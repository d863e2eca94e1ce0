"""The compiler laboratory: a training step compiled for a slice that is not there, and what its program tells."""
