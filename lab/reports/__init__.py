"""Reports, figures and files made from records, checkpoints and data."""
