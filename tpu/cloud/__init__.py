"""The launcher: slices of Cloud TPU, what is shipped to them, and the jobs on them."""
