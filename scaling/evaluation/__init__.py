"""Features or predictions, and truth, to scores: probes, intervals, spectra."""
