"""An encoder and labels to a trained head and its scores."""
