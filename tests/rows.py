"""Rows of the app's database."""

import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from app.store import Drawing


def row(prediction=7, truth=None, minutes=0, **changes):
    """A drawing of some minutes after the new year 2026."""
    chances = [0.01] * 10
    chances[prediction] = 0.91
    when = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=minutes)
    made = Drawing(uuid.uuid4(), when, "step3, seed 1", bytes(range(196)) * 4, chances, prediction, 0.91, truth)
    return replace(made, **changes)
