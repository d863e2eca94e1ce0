"""What every room stands on: configs, rows, errors, paths, what is printed and drawn."""
