"""Cloud TPU: know that a configuration fits before paying, start it, and see it through preemptions."""
