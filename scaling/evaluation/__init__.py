"""What features are worth: extraction, k-NN and other probes."""
