"""Data sources and the input pipeline that turns them into batches."""
