"""The web server: pictures in, ten probabilities out; truths in, statistics out."""

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
from app.recorder import AlreadyKnown, DatabaseAway, Recorder, Spool, UnknownDrawing
from app.settings import Settings
from app.store import Drawing, Store

PAGE = Path(__file__).parent / "page"
LARGEST_BODY = 2 * 1024 * 1024
MANY_CLIENTS = 10_000
STATUS = {  # of what is refused
    digit.NotAPicture: 415,
    digit.TooLarge: 413,
    digit.Unreadable: 422,
    digit.NoDigit: 422,
    UnknownDrawing: 404,
    AlreadyKnown: 409,
    DatabaseAway: 503,
}
UNEXPECTED = "something went wrong here, and the server's log says what"

# Everything comes from here; the one picture that does not is made in the page itself.
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
    """How often each client may ask: so many at once, and so many a second on average."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by client: requests left, and when

    def seconds_to_wait(self, client: str) -> float:
        """0 if the client may ask now, and then it has."""
        now = time.monotonic()
        left, then = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._per_second)
        self._left[client] = (max(0.0, left - 1) if left >= 1 else left, now)
        if len(self._left) > MANY_CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self._per_second


class Answers:
    """From a picture to an answer, in a few threads; of more than may wait, none is begun."""

    def __init__(self, network: Network, workers: int, waiting: int) -> None:
        self._network = network
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="answers")
        self._free = workers + waiting

    async def answer(self, body: bytes) -> tuple[np.ndarray, Prediction]:
        """Raises as `digit.prepare`, and HTTPException where too many wait."""
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
    """For Prometheus."""

    def __init__(self, recorder: Recorder) -> None:
        self.registry = CollectorRegistry()
        labels = {"registry": self.registry}
        self.requests = Counter("app_requests", "Requests by route and status", ["route", "status"], **labels)
        self.seconds = Histogram(
            "app_predict_seconds",
            "Seconds from a picture to its answer",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.5, 2),
            **labels,
        )
        self.predictions = Counter("app_predictions", "Predictions by digit", ["digit"], **labels)
        Gauge("app_spool_rows", "Rows that the database does not have yet", **labels).set_function(recorder.waiting)
        Gauge("app_predictions_not_recorded", "Predictions that found the spool full", **labels).set_function(
            lambda: recorder.dropped
        )
        Gauge("app_database_up", "Whether the database took what it was last given", **labels).set_function(
            lambda: float(recorder.online)
        )


class Truth(BaseModel):
    """What somebody says a drawing was."""

    digit: Annotated[int, Field(strict=True, ge=0, lt=DIGITS)]


async def read_body(request: Request) -> bytes:
    """The body, as long as it is no longer than it may be. Raises HTTPException."""
    too_large = HTTPException(413, "the file is larger than 2 MiB, expected a smaller picture")
    if int(request.headers.get("content-length") or 0) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise too_large
    return bytes(body)


async def read_truth(request: Request) -> Truth:
    """Raises HTTPException for a body that is none; JSON has to be named, which a page of elsewhere cannot do unasked."""
    named = request.headers.get("content-type", "").split(";")[0]
    body = await read_body(request)
    with suppress(ValidationError):
        if named == "application/json":
            return Truth.model_validate_json(body)
    raise HTTPException(422, 'the body is not a truth, expected JSON such as {"digit": 7}, with a digit from 0 to 9')


# ---------------------------------------------------------------------------------------------------------------------
# The routes
# ---------------------------------------------------------------------------------------------------------------------


class Parts:
    """All that the routes need, loaded and started; the database may be away.

    Raises FileNotFoundError or ValueError for a network that cannot be loaded, ValueError for an address that is none, and
    OSError for a folder of data that cannot be written.
    """

    def __init__(self, settings: Settings) -> None:
        self.network, database = Network(settings.network), settings.database  # before anything is written
        self.stores_drawings = settings.store_drawings
        spool = Spool(settings.data / "spool.sqlite")
        self.recorder = Recorder(Store(database, settings.database_timeout), spool)
        self.answers = Answers(self.network, settings.workers, settings.waiting)
        self.clients = Clients(settings.requests_per_second, settings.burst)
        self.metrics = Metrics(self.recorder)

    def admit(self, request: Request) -> None:
        """Raises HTTPException for a client that asks too often."""
        seconds = self.clients.seconds_to_wait(request.client.host if request.client else "")
        if seconds:
            wait = {"Retry-After": str(max(1, round(seconds)))}
            raise HTTPException(429, "these are more requests than one client may make, try again in a moment", wait)

    def record(self, drawing: uuid.UUID, image: np.ndarray, said: Prediction) -> None:
        kept = image.tobytes() if self.stores_drawings else None
        now = datetime.now(timezone.utc)
        row = Drawing(drawing, now, self.network.name, kept, said.probabilities, said.digit, said.confidence)
        self.recorder.predicted(row)

    def close(self) -> None:
        self.answers.close()
        self.recorder.stop()


def make_app(settings: Settings) -> FastAPI:
    """The app. Raises as `Parts`."""
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
    """What the page asks."""

    @app.post("/predict")
    async def predict(request: Request, drawing: uuid.UUID | None = None) -> dict[str, object]:
        parts.admit(request)
        begin = time.perf_counter()
        image, said = await parts.answers.answer(await read_body(request))
        parts.metrics.seconds.observe(time.perf_counter() - begin)
        parts.metrics.predictions.labels(said.digit).inc()
        if drawing:
            parts.record(drawing, image, said)
        return {
            "digit": said.digit,
            "confidence": said.confidence,
            "probabilities": said.probabilities,
            "image": base64.b64encode(image.tobytes()).decode(),
        }

    @app.post("/drawings/{drawing}/truth")
    async def truth(request: Request, drawing: uuid.UUID) -> dict[str, object]:
        parts.admit(request)
        told = await read_truth(request)
        return {"recorded": await asyncio.to_thread(parts.recorder.corrected, drawing, told.digit)}

    @app.get("/statistics")
    async def statistics(request: Request) -> dict[str, object]:
        parts.admit(request)
        counted = await asyncio.to_thread(parts.recorder.statistics)
        return counted | {"waiting": parts.recorder.waiting()}

    @app.get("/about")
    async def about() -> dict[str, object]:
        return parts.network.about | {"drawings_are_stored": parts.stores_drawings}


def _add_operation(app: FastAPI, parts: Parts) -> None:
    """What those ask who keep it running."""

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, object]:
        database = "reachable" if parts.recorder.online else "away, spooling"
        return {"network": parts.network.name, "database": database, "waiting": parts.recorder.waiting()}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI) -> None:
    """Each error is one sentence as JSON, with nothing of what was sent."""

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        status = STATUS.get(type(error), 500)
        sentence = str(error) if type(error) in STATUS else UNEXPECTED
        return JSONResponse({"error": sentence}, status)

    for kind in (*STATUS, Exception):
        app.add_exception_handler(kind, refuse)

    @app.exception_handler(StarletteHTTPException)
    async def refuse_request(request: Request, error: StarletteHTTPException) -> JSONResponse:
        known = {404: "there is nothing at this address", 405: "this address takes another method"}
        sentence = error.detail if isinstance(error, HTTPException) else known.get(error.status_code, error.detail)
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_id(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "the drawing's id is none, expected a UUID"}, 422)


class _Log:
    """Around all that is answered: a line in the log, a count, and the headers that keep a page safe."""

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
            status = 499  # as others call it: nobody is there any more to be answered
        finally:
            route = getattr(scope.get("route"), "path", "/")  # not the address as sent: nothing of the sender's is kept
            self._metrics.requests.labels(route, status).inc()
            took = round(1_000 * (time.perf_counter() - begin), 1)
            about = {"method": scope["method"], "route": route, "status": status, "milliseconds": took}
            logger.info("request", extra=about)
