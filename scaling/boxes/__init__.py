"""Oriented boxes: what they are, how much two of them share, which are kept, what a feature map says inside of them."""
