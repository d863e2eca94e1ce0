"""Data efficiency of an encoder: fine-tunings on nested fractions of a training set."""
