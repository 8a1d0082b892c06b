"""A network of one's own, judged: what it is, what it reaches over seeds; and a class of them, graded."""
