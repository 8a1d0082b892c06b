"""A network of your own, judged: what it is at once, and what it reaches over seeds."""
