"""Laws through measured numbers: forms, fits, intervals, and what a fit cannot say."""
