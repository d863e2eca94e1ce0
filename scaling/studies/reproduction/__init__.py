"""Tables of papers, recomputed from published weights and a user's copy of the data."""
