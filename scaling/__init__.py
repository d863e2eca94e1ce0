"""How much of a vision transformer do we need? Scaling studies of remote-sensing foundation models."""

__version__ = "0.1.0"
