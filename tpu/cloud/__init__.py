"""The launcher: slices of Cloud TPU, the code shipped to them, and the jobs on them."""
