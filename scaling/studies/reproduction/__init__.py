"""The tables of papers again, from published weights and data as they lie at a user's place."""
