"""The foundation of all packages: configs, rows, errors, paths, files, and printed and drawn output."""
