"""Drills: the same promise tried thousands of times, on random cases that a number reproduces.

    python -m tests.drills [NAME …] [--seed=N] [--count=N] [--short] [--output=DIR]

A case is a number: all its random choices are drawn from the name of its part and this number. `make drill` runs every
part to its full count and resumes; `make drill-short` runs a few of each. See results/drills/README.md.
"""
