"""What is measured, counted, fitted and drawn."""
