"""What is written from records, checkpoints and data."""
