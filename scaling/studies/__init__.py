"""Jobs to rows of measurements; a study that was interrupted is resumed."""
