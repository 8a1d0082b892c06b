"""The addresses of the server: those of the page, and those for its operators."""

import asyncio
import base64
import uuid

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import Match, Route
from starlette.types import Scope

from app.errors import INVALID_ID
from app.services import Services


class LeanRoute(Route):
    """A route without what FastAPI's own do: parse, convert and check. It takes half the time."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return Starlette's answer, and note the route, which the log names."""
        match, child = super().matches(scope)
        return match, {**child, "route": self}


def add_drawings(app: FastAPI, services: Services) -> None:
    """Routes for the page."""

    async def predict(request: Request) -> Response:
        drawing = _drawing_in(request)
        image, prediction = await services.predict(request)
        if drawing:
            services.record(drawing, image, prediction)
        return JSONResponse(
            {
                "digit": prediction.digit,
                "confidence": prediction.confidence,
                "probabilities": prediction.probabilities,
                "doubt": prediction.doubt,
                "image": base64.b64encode(image.tobytes()).decode(),
            }
        )

    app.router.routes.append(LeanRoute("/predict", predict, methods=["POST"]))

    @app.post("/drawings/{drawing}/truth")
    async def truth(request: Request, drawing: uuid.UUID) -> dict[str, object]:
        return {"recorded": await services.correct(request, drawing)}

    @app.delete("/drawings/{drawing}/truth")
    async def retract(request: Request, drawing: uuid.UUID) -> dict[str, object]:
        services.admit(services.corrections, request)
        return {"recorded": await services.retract(drawing)}

    @app.get("/statistics")
    async def statistics(request: Request) -> dict[str, object]:
        services.admit(services.requests, request)
        counted = await asyncio.to_thread(services.classroom.statistics)
        return counted | {"waiting": services.recorder.waiting()}

    @app.get("/about")
    async def about() -> dict[str, object]:
        return services.network.about | {"drawings_are_stored": await asyncio.to_thread(services.keeps_images)}


def _drawing_in(request: Request) -> uuid.UUID | None:
    """Return the drawing's id, if the query names one. Raises HTTPException (422) if it is not a UUID."""
    try:
        return uuid.UUID(request.query_params["drawing"]) if "drawing" in request.query_params else None
    except ValueError:
        raise HTTPException(422, INVALID_ID) from None


def add_operation(app: FastAPI, services: Services) -> None:
    """Routes for operators: health, readiness and metrics."""

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz(response: Response) -> dict[str, object]:
        database = "reachable" if services.recorder.online else "unreachable, spooling"
        if not services.recorder.alive:
            response.status_code, database = 503, "nothing is recorded: the recorder has stopped, restart this server"
        return {"network": services.network.name, "database": database, "waiting": services.recorder.waiting()}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)
