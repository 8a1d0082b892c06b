"""The web server: predicts digits from pictures, records corrections and shows statistics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from app.access_log import AccessLog
from app.errors import add_errors
from app.network import Network
from app.room import add_room
from app.routes import add_drawings, add_operation
from app.security import Security
from app.services import Services
from app.settings import Settings
from app.teacher import add_teacher
from app.why import add_why

PAGE = Path(__file__).parent / "page"


def make_app(settings: Settings) -> FastAPI:
    """Create the FastAPI app; its `state.printed_token` is for whoever starts it.

    Raises what `Network` and `Services` raise.
    """
    other = Network(settings.compare)  # before the services write anything to disk
    services = Services(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(services.close)

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.state.printed_token = services.teacher.printed
    add_drawings(app, services)
    add_why(app, services, other)
    add_operation(app, services)
    add_room(app, services, settings.address)
    add_teacher(app, services)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    add_errors(app)
    app.add_middleware(AccessLog, metrics=services.metrics)
    app.add_middleware(Security, hosts=settings.hosts, frames=settings.frames)
    return app
