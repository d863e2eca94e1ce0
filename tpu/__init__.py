"""Cloud TPU: know that a configuration fits before paying, start it, and see it through preemptions."""

import scaling  # noqa: F401  first of all, for what it does about Ctrl-C
