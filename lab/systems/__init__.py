"""Published systems, as recipes."""
