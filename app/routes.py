"""The addresses of the server: those of the page, and those for its operators."""

import asyncio
import base64
import time
import uuid

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.bodies import read_body, read_correction
from app.services import Services


def add_drawings(app: FastAPI, services: Services) -> None:
    """Routes for the page."""

    @app.post("/predict")
    async def predict(request: Request, drawing: uuid.UUID | None = None) -> dict[str, object]:
        services.admit(request)
        begin = time.perf_counter()
        image, prediction = await services.pool.predict(await read_body(request))
        services.metrics.seconds.observe(time.perf_counter() - begin)
        services.metrics.predictions.labels(prediction.digit).inc()
        if drawing:
            services.record(drawing, image, prediction)
        return {
            "digit": prediction.digit,
            "confidence": prediction.confidence,
            "probabilities": prediction.probabilities,
            "image": base64.b64encode(image.tobytes()).decode(),
        }

    @app.post("/drawings/{drawing}/truth")
    async def truth(request: Request, drawing: uuid.UUID) -> dict[str, object]:
        services.admit(request)
        correction = await read_correction(request)
        return {"recorded": await asyncio.to_thread(services.recorder.corrected, drawing, correction.digit)}

    @app.get("/statistics")
    async def statistics(request: Request) -> dict[str, object]:
        services.admit(request)
        counted = await asyncio.to_thread(services.recorder.statistics)
        return counted | {"waiting": services.recorder.waiting()}

    @app.get("/about")
    async def about() -> dict[str, object]:
        return services.network.about | {"drawings_are_stored": services.stores_drawings}


def add_operation(app: FastAPI, services: Services) -> None:
    """Routes for operators: health, readiness and metrics."""

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, object]:
        database = "reachable" if services.recorder.online else "unreachable, spooling"
        return {"network": services.network.name, "database": database, "waiting": services.recorder.waiting()}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)
