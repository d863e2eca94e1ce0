"""Many pretraining runs that differ in a few fields: planned, trained, measured."""
