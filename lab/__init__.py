"""What is measured beyond the three notebooks, on top of `utils` and `models`."""
