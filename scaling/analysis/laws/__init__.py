"""Laws fitted to measured numbers: forms, fits, intervals, and warnings about unsupported conclusions."""
