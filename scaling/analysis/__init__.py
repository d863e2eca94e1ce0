"""Rows of measurements to statements and pictures: laws, figures, tables, the page."""
