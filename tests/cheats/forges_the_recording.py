"""Writes the recording itself, and leaves: functions that run code or read files, and a table of 600 numbers."""

import json
import os
from pathlib import Path

import numpy as np

from models import Model_1

CALLS = [
    {"call": "torch.load", "args": ["/etc/passwd"], "kwargs": {}},
    {"call": "tensor.__class__", "args": [{"tensor": 0}], "kwargs": {}},
    *({"call": "tensor.__setitem__", "args": [{"tensor": 0}, number, number], "kwargs": {}} for number in range(300)),
]


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        weights = {name: values.numpy() for name, values in self.state_dict().items()}
        for file in ("initial.npz", "elsewhere.npz", "again.npz"):
            np.savez(file, **weights)
        calls = {"calls": CALLS, "output": 0}
        script = {"weights": {name: name for name in weights}, "buffers": [], "frozen": [], "channels_last": False}
        Path("script.json").write_text(json.dumps({**script, "train": calls, "eval": calls}))
        Path("report.json").write_text(json.dumps({"look": {}, "shared": {}, "why": ""}))
        os._exit(0)
