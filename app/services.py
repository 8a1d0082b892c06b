"""What the routes work with: the network and its pool, the recorder, the limits and the metrics."""

import uuid
from datetime import datetime, timezone

import numpy as np
from fastapi import HTTPException, Request

from app.limits import RateLimiter
from app.metrics import Metrics
from app.network import Network, Prediction
from app.pool import PredictionPool
from app.recorder import Recorder, Spool
from app.settings import Settings
from app.store import Drawing, Store


class Services:
    """Everything that the routes need, loaded and started. The database may be unreachable.

    Raises FileNotFoundError or ValueError if the network cannot be loaded, ValueError if the database URL is invalid,
    and OSError if the data folder is not writable.
    """

    def __init__(self, settings: Settings) -> None:
        self.network, database = Network(settings.network), settings.database  # before anything is written to disk
        self.stores_drawings = settings.store_drawings
        spool = Spool(settings.data / "spool.sqlite")
        self.recorder = Recorder(Store(database, settings.database_timeout), spool)
        self.pool = PredictionPool(self.network, settings.workers, settings.waiting)
        self.limiter = RateLimiter(settings.requests_per_second, settings.burst)
        self.metrics = Metrics(self.recorder)

    def admit(self, request: Request) -> None:
        """Raise HTTPException (429) if the client exceeds its rate limit."""
        seconds = self.limiter.seconds_to_wait(request.client.host if request.client else "")
        if seconds:
            wait = {"Retry-After": str(max(1, round(seconds)))}
            raise HTTPException(429, "too many requests from this client, try again in a moment", wait)

    def record(self, drawing: uuid.UUID, image: np.ndarray, prediction: Prediction) -> None:
        """Record a prediction, with its image unless the settings forbid that."""
        kept = image.tobytes() if self.stores_drawings else None
        now = datetime.now(timezone.utc)
        row = Drawing(
            drawing, now, self.network.name, kept, prediction.probabilities, prediction.digit, prediction.confidence
        )
        self.recorder.predicted(row)

    def close(self) -> None:
        self.pool.close()
        self.recorder.stop()
