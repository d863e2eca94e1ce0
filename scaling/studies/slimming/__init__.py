"""Slimming studies: one pretrained encoder cut to many widths, and the loss of score under probes."""
