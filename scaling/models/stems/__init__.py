"""What stands before the blocks of the public models that do not embed their patches with one matrix."""
