"""What the routes work with: the network and its pool, the recorder, the limits and the metrics."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timezone

import numpy as np
from fastapi import HTTPException, Request

from app import costs
from app.access import TeacherAccess
from app.bodies import announced_bytes, read_body, read_correction
from app.classroom import Classroom
from app.limits import RateLimiter, WorkLimiter
from app.metrics import Metrics
from app.network import Network, Prediction
from app.pool import PredictionPool
from app.recorder import Recorder, UnknownDrawing
from app.settings import Settings
from app.spool import Spool
from app.store import Drawing, Store

CORRECTING = 16  # threads that wait for the database to store a correction
APPEARING = (0.1, 0.3, 0.6)  # seconds between looks for a drawing that another server has predicted a moment ago


class Services:
    """Everything that the routes need, loaded and started. The database may be unreachable.

    Raises FileNotFoundError or ValueError if the network cannot be loaded, ValueError if the database URL is invalid or
    its SQLite file is damaged, and OSError if the data folder is not writable.
    """

    def __init__(self, settings: Settings) -> None:
        self.network, database = Network(settings.network), settings.database  # before anything is written to disk
        self.stores_drawings = settings.store_drawings
        spool = Spool(settings.data / "spool.sqlite")
        self.store = Store(database, settings.database_timeout)
        self.store.expect_intact()
        self.recorder = Recorder(self.store, spool)
        self.classroom = Classroom(self.store, self.recorder)
        self.teacher = TeacherAccess(settings.token)
        self.pool = PredictionPool(self.network, settings.workers, settings.waiting)
        self.requests = RateLimiter(settings.requests_per_second, settings.burst)
        self.corrections = RateLimiter(settings.corrections_per_second, settings.corrections_burst)
        self._in_work = WorkLimiter(settings.in_work)
        self._correcting = ThreadPoolExecutor(CORRECTING, thread_name_prefix="corrections")
        self.metrics = Metrics(self.recorder)

    def admit(self, limiter: RateLimiter, request: Request, cost: float = 1.0) -> None:
        """Raise HTTPException (429) if the client exceeds its rate limit."""
        seconds = limiter.seconds_to_wait(client_of(request), cost)
        if seconds:
            wait = {"Retry-After": str(max(1, round(seconds)))}
            raise HTTPException(429, "too many requests from this client, try again in a moment", wait)

    @contextmanager
    def working(self, request: Request, cost: float) -> Iterator[None]:
        """Count the cost as in work until the block ends. Raises HTTPException (503) if the client has too much."""
        with self._in_work.admitted(client_of(request), cost) as admitted:
            if not admitted:
                sentence = "too many pictures of this client are in work, try again in a moment"
                raise HTTPException(503, sentence, {"Retry-After": "1"})
            yield

    async def predict(self, request: Request) -> tuple[np.ndarray, Prediction]:
        """Read a picture and return the prepared image, uint8 of shape (28, 28), and its prediction.

        Raises what `read_body` and `PredictionPool.predict` raise, and HTTPException: 429 if the client exceeds its
        rate limit, 503 if it has too much in work.
        """
        begin = time.perf_counter()
        self.admit(self.requests, request)
        with self.working(request, 1 + announced_bytes(request) / costs.BYTES):
            body = await read_body(request)
        if costs.is_small(body):
            image, prediction = self.pool.predict_now(body)
        else:
            cost = costs.pixels_in(body) / costs.PIXELS
            self.admit(self.requests, request, cost)
            with self.working(request, cost):
                image, prediction = await self.pool.predict(body)
        self.metrics.predicted(prediction.digit, time.perf_counter() - begin)
        return image, prediction

    def keeps_images(self) -> bool:
        """Return whether images of drawings are stored now: the settings allow it, and so does the teacher."""
        return self.stores_drawings and self.classroom.keeps_images()

    def record(self, drawing: uuid.UUID, image: np.ndarray, prediction: Prediction) -> None:
        """Record a prediction, with its image unless the settings or the teacher forbid that."""
        kept = image.tobytes() if self.stores_drawings and self.store.keeps_images else None
        now = datetime.now(timezone.utc)
        row = Drawing(
            drawing,
            now,
            self.network.name,
            kept,
            prediction.probabilities,
            prediction.digit,
            prediction.confidence,
            doubt=prediction.doubt,
        )
        self.recorder.predicted(row)

    async def correct(self, request: Request, drawing: uuid.UUID) -> bool:
        """Read a correction and record it. Returns True if the database has stored it.

        Raises what `read_correction` and `Recorder.corrected` raise, and HTTPException (429) if the client exceeds its
        rate limit for corrections.
        """
        self.admit(self.corrections, request)
        truth = (await read_correction(request)).digit
        for seconds in APPEARING:
            with suppress(UnknownDrawing):
                return await self._change_label(self.recorder.corrected, drawing, truth)
            await asyncio.sleep(seconds)
        return await self._change_label(self.recorder.corrected, drawing, truth)

    async def retract(self, drawing: uuid.UUID) -> bool:
        """Take a correction back. Returns True if the database has stored that. Raises what `Recorder.retracted` raises."""
        return await self._change_label(self.recorder.retracted, drawing)

    async def _change_label(self, change: Callable[..., bool], *arguments: object) -> bool:
        stored = await asyncio.get_running_loop().run_in_executor(self._correcting, change, *arguments)
        self.classroom.outdate()
        return stored

    def close(self) -> None:
        self.pool.close()
        self._correcting.shutdown()
        self.recorder.stop()


def client_of(request: Request) -> str:
    """Return the client's address."""
    return request.client.host if request.client else ""
