"""Turns rows of measurements into statements and pictures: laws, figures, tables, the page."""
