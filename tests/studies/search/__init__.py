"""The search for depth and width under a budget."""
