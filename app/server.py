"""The web server: pictures in, ten probabilities out; truths in, statistics out."""

import asyncio
import base64
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field
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
STATUS = {digit.NotAPicture: 415, digit.TooLarge: 413, digit.Unreadable: 422, digit.NoDigit: 422}

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


# ---------------------------------------------------------------------------------------------------------------------
# The routes
# ---------------------------------------------------------------------------------------------------------------------


class Truth(BaseModel):
    """What somebody says a drawing was."""

    digit: Annotated[int, Field(strict=True, ge=0, lt=DIGITS)]


def make_app(settings: Settings) -> FastAPI:
    """The app with its network, loaded, and its database, which may be away.

    Raises FileNotFoundError or ValueError for a network that cannot be loaded, ValueError for an address that is none, and
    OSError for a folder of data that cannot be written.
    """
    network, database = Network(settings.network), settings.database  # before anything is written
    spool = Spool(settings.data / "spool.sqlite")
    recorder = Recorder(Store(database, settings.database_timeout), spool)
    answers = Answers(network, settings.workers, settings.waiting)
    clients = Clients(settings.requests_per_second, settings.burst)
    metrics = Metrics(recorder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        answers.close()
        await asyncio.to_thread(recorder.stop)

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    def admit(request: Request) -> None:
        seconds = clients.seconds_to_wait(request.client.host if request.client else "")
        if seconds:
            wait = {"Retry-After": str(max(1, round(seconds)))}
            raise HTTPException(429, "these are more requests than one client may make, try again in a moment", wait)

    @app.post("/predict")
    async def predict(
        request: Request, drawing: Annotated[uuid.UUID | None, Query(description="recorded under this id")] = None
    ) -> dict[str, object]:
        admit(request)
        begin = time.perf_counter()
        image, said = await answers.answer(await read_body(request))
        metrics.seconds.observe(time.perf_counter() - begin)
        metrics.predictions.labels(said.digit).inc()
        if drawing:
            kept = image.tobytes() if settings.store_drawings else None
            now = datetime.now(timezone.utc)
            row = Drawing(drawing, now, network.name, kept, said.probabilities, said.digit, said.confidence)
            recorder.predicted(row)
        return {
            "digit": said.digit,
            "confidence": said.confidence,
            "probabilities": said.probabilities,
            "image": base64.b64encode(image.tobytes()).decode(),
        }

    @app.post("/drawings/{drawing}/truth")
    async def truth(request: Request, drawing: uuid.UUID, told: Truth) -> dict[str, object]:
        admit(request)
        try:
            return {"recorded": await asyncio.to_thread(recorder.corrected, drawing, told.digit)}
        except UnknownDrawing as error:
            raise HTTPException(404, str(error)) from None
        except AlreadyKnown as error:
            raise HTTPException(409, str(error)) from None
        except DatabaseAway as error:
            raise HTTPException(503, str(error)) from None

    @app.get("/statistics")
    async def statistics(request: Request) -> dict[str, object]:
        admit(request)
        try:
            counted = await asyncio.to_thread(recorder.statistics)
        except DatabaseAway as error:
            raise HTTPException(503, str(error)) from None
        return counted | {"waiting": recorder.waiting(), "drawings_are_stored": settings.store_drawings}

    @app.get("/about")
    async def about() -> dict[str, object]:
        return network.about | {"drawings_are_stored": settings.store_drawings}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, object]:
        database = "reachable" if recorder.online else "away, spooling"
        return {"network": network.name, "database": database, "waiting": recorder.waiting()}

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    _add_errors(app)
    app.add_middleware(_Log, metrics=metrics)
    return app


def _add_errors(app: FastAPI) -> None:
    """Each error is one sentence as JSON, with nothing of what was sent."""

    def refuse(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": sentence}, status, headers)

    @app.exception_handler(StarletteHTTPException)
    async def http_error(request: Request, error: StarletteHTTPException) -> JSONResponse:
        known = {404: "there is nothing at this address", 405: "this address takes another method"}
        sentence = error.detail if isinstance(error, HTTPException) else known.get(error.status_code, error.detail)
        return refuse(error.status_code, sentence, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        where = error.errors()[0]["loc"][0]
        expected = {
            "path": "the address has no drawing's id, expected a UUID",
            "query": "the drawing's id is none, expected a UUID",
        }
        return refuse(
            422, expected.get(where, 'the body is not a truth, expected {"digit": 7}, with a digit from 0 to 9')
        )

    async def no_digit(request: Request, error: ValueError) -> JSONResponse:
        return refuse(STATUS[type(error)], str(error))

    for kind in STATUS:
        app.add_exception_handler(kind, no_digit)


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
