"""What is measured beyond the three notebooks, on top of `utils` and `models`."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1500")  # as utils does: modules here may import PyTorch before it
