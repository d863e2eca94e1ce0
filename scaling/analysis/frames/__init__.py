"""Other people's tables: files of any columns to frames of numbers, chosen and made by expressions."""
