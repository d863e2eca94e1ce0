"""Other people's checkpoints, onto our axes."""
