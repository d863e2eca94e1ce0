"""Cloud TPU: check that a configuration fits before paying, start it, and keep it running through preemptions."""

import scaling  # noqa: F401  first of all, for what it does about Ctrl-C
