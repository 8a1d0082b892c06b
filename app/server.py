"""The web server: predicts digits from pictures, records corrections and shows statistics."""

import asyncio
import base64
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import digit
from app.network import DIGITS, Network, Prediction
from app.recorder import AlreadyKnown, DatabaseUnreachable, Recorder, Spool, UnknownDrawing
from app.settings import Settings
from app.store import Drawing, Store

PAGE = Path(__file__).parent / "page"
LARGEST_BODY = 2 * 1024 * 1024
MANY_CLIENTS = 10_000
STATUS = {  # HTTP status of each error
    digit.NotAPicture: 415,
    digit.TooLarge: 413,
    digit.Unreadable: 422,
    digit.NoDigit: 422,
    UnknownDrawing: 404,
    AlreadyKnown: 409,
    DatabaseUnreachable: 503,
}
UNEXPECTED = "something went wrong on the server, see its log for details"

# The page loads everything from this server, except pictures that it makes itself (blob: and data:).
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

logger = logging.getLogger("app.server")


# ---------------------------------------------------------------------------------------------------------------------
# What the routes need
# ---------------------------------------------------------------------------------------------------------------------


class Clients:
    """Rate limit per client, as a token bucket: `burst` requests at once, `per_second` on average."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client: requests left, time of the last one

    def seconds_to_wait(self, client: str) -> float:
        """Return 0 and count the request if the client may send one now; otherwise, the seconds until it may."""
        now = time.monotonic()
        left, then = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_second)
        self._left[client] = (max(0.0, left - 1) if left >= 1 else left, now)
        if len(self._left) > MANY_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._per_second


class Answers:
    """Predicts in a few worker threads; refuses pictures once the queue is full."""

    def __init__(self, network: Network, workers: int, waiting: int) -> None:
        self._network = network
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="answers")
        self._free = workers + waiting

    async def answer(self, body: bytes) -> tuple[np.ndarray, Prediction]:
        """Return the prepared image, uint8 of shape (28, 28), and its prediction.

        Raises what `digit.prepare` raises, and HTTPException (503) if the queue is full.
        """
        if self._free == 0:
            raise HTTPException(503, "too many pictures are waiting, try again in a moment", {"Retry-After": "1"})
        self._free -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, body)
        finally:
            self._free += 1

    def _answer(self, body: bytes) -> tuple[np.ndarray, Prediction]:
        image = digit.prepare(body)
        return image, self._network.predict(image)

    def close(self) -> None:
        self._pool.shutdown()


class Metrics:
    """Metrics for Prometheus."""

    def __init__(self, recorder: Recorder) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "app_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "app_predict_seconds",
            "Seconds from receiving a picture to its prediction",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.5, 2),
            registry=self.registry,
        )
        self.predictions = Counter("app_predictions", "Predictions by digit", ["digit"], registry=self.registry)
        Gauge("app_spool_rows", "Rows not yet in the database", registry=self.registry).set_function(recorder.waiting)
        lost = "Predictions lost because the spool was full or not writable"
        Gauge("app_predictions_not_recorded", lost, registry=self.registry).set_function(lambda: recorder.dropped)
        up = "1 if the last write to the database succeeded, else 0"
        Gauge("app_database_up", up, registry=self.registry).set_function(lambda: float(recorder.online))


class Correction(BaseModel):
    """The correct digit of a drawing, according to the user."""

    digit: Annotated[int, Field(strict=True, ge=0, lt=DIGITS)]


async def read_body(request: Request) -> bytes:
    """Return the request body. Raises HTTPException (413) if it is larger than LARGEST_BODY."""
    too_large = HTTPException(413, "the file is larger than 2 MiB, expected a smaller picture")
    if int(request.headers.get("content-length") or 0) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise too_large
    return bytes(body)


async def read_correction(request: Request) -> Correction:
    """Parse the request body. Raises HTTPException: 422 if it is not a correction, 413 if it is too large.

    The content type must be JSON: pages of other origins cannot send that without a preflight request.
    """
    named = request.headers.get("content-type", "").split(";")[0]
    body = await read_body(request)
    with suppress(ValidationError):
        if named == "application/json":
            return Correction.model_validate_json(body)
    raise HTTPException(422, 'the body is not a correction, expected JSON like {"digit": 7}, with a digit from 0 to 9')


# ---------------------------------------------------------------------------------------------------------------------
# The routes
# ---------------------------------------------------------------------------------------------------------------------


class Parts:
    """Everything that the routes need, loaded and started. The database may be unreachable.

    Raises FileNotFoundError or ValueError if the network cannot be loaded, ValueError if the database URL is invalid,
    and OSError if the data folder is not writable.
    """

    def __init__(self, settings: Settings) -> None:
        self.network, database = Network(settings.network), settings.database  # before anything is written to disk
        self.stores_drawings = settings.store_drawings
        spool = Spool(settings.data / "spool.sqlite")
        self.recorder = Recorder(Store(database, settings.database_timeout), spool)
        self.answers = Answers(self.network, settings.workers, settings.waiting)
        self.clients = Clients(settings.requests_per_second, settings.burst)
        self.metrics = Metrics(self.recorder)

    def admit(self, request: Request) -> None:
        """Raise HTTPException (429) if the client exceeds its rate limit."""
        seconds = self.clients.seconds_to_wait(request.client.host if request.client else "")
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
        self.answers.close()
        self.recorder.stop()


def make_app(settings: Settings) -> FastAPI:
    """Create the FastAPI app. Raises what `Parts` raises."""
    parts = Parts(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(parts.close)

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    _add_drawings(app, parts)
    _add_operation(app, parts)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    _add_errors(app)
    app.add_middleware(_Log, metrics=parts.metrics)
    return app


def _add_drawings(app: FastAPI, parts: Parts) -> None:
    """Routes for the page."""

    @app.post("/predict")
    async def predict(request: Request, drawing: uuid.UUID | None = None) -> dict[str, object]:
        parts.admit(request)
        begin = time.perf_counter()
        image, prediction = await parts.answers.answer(await read_body(request))
        parts.metrics.seconds.observe(time.perf_counter() - begin)
        parts.metrics.predictions.labels(prediction.digit).inc()
        if drawing:
            parts.record(drawing, image, prediction)
        return {
            "digit": prediction.digit,
            "confidence": prediction.confidence,
            "probabilities": prediction.probabilities,
            "doubt": prediction.doubt,
            "image": base64.b64encode(image.tobytes()).decode(),
        }

    @app.post("/drawings/{drawing}/truth")
    async def truth(request: Request, drawing: uuid.UUID) -> dict[str, object]:
        parts.admit(request)
        correction = await read_correction(request)
        return {"recorded": await asyncio.to_thread(parts.recorder.corrected, drawing, correction.digit)}

    @app.get("/statistics")
    async def statistics(request: Request) -> dict[str, object]:
        parts.admit(request)
        counted = await asyncio.to_thread(parts.recorder.statistics)
        return counted | {"waiting": parts.recorder.waiting()}

    @app.get("/about")
    async def about() -> dict[str, object]:
        return parts.network.about | {"drawings_are_stored": parts.stores_drawings}


def _add_operation(app: FastAPI, parts: Parts) -> None:
    """Routes for operators: health, readiness and metrics."""

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, object]:
        database = "reachable" if parts.recorder.online else "unreachable, spooling"
        return {"network": parts.network.name, "database": database, "waiting": parts.recorder.waiting()}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI) -> None:
    """Return errors as one-sentence JSON that never echoes the input."""

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        status = STATUS.get(type(error), 500)
        sentence = str(error) if type(error) in STATUS else UNEXPECTED
        return JSONResponse({"error": sentence}, status)

    for kind in (*STATUS, Exception):
        app.add_exception_handler(kind, refuse)

    @app.exception_handler(StarletteHTTPException)
    async def refuse_request(request: Request, error: StarletteHTTPException) -> JSONResponse:
        known = {404: "there is nothing at this address", 405: "this address does not support this method"}
        sentence = error.detail if isinstance(error, HTTPException) else known.get(error.status_code, error.detail)
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_id(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "the drawing's id is invalid, expected a UUID"}, 422)


class _Log:
    """Middleware that logs and counts every request, and adds the security headers to every response."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begin, status = time.perf_counter(), 500

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SECURITY)
            await send(message)

        try:
            await self._app(scope, receive, send_safely)
        except ClientDisconnect:
            status = 499  # nginx's code for a client that closed the connection
        finally:
            route = getattr(scope.get("route"), "path", "/")  # not the URL as sent: the log keeps no user input
            self._metrics.requests.labels(route, status).inc()
            took = round(1_000 * (time.perf_counter() - begin), 1)
            about = {"method": scope["method"], "route": route, "status": status, "milliseconds": took}
            logger.info("request", extra=about)
