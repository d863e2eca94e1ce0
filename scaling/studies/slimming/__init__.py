"""One pretrained encoder cut to many widths, and what probes lose by it."""
