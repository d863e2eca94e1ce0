"""Studies: lists of jobs that produce rows of measurements, resumable after an interruption."""
