"""Raises an error whose message wants to run on the instructor's page and in a spreadsheet."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        raise ValueError(
            "=HYPERLINK(\"http://127.0.0.1\")<script>alert('cheat_was_here')</script>\x1b[2J" + "x" * 1_000_000
        )
