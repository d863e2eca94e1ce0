"""Vision transformers as pure functions of (params, x), with modules that only declare parameters."""
