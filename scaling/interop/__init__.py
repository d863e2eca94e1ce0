"""Public checkpoints, mapped onto our axes."""
