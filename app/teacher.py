"""The addresses of the teacher's page, which need the token."""

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from app.access import TooManyTokens
from app.bodies import read_json
from app.classroom import Which
from app.export import as_zip
from app.services import Services, client_of

NOT_KEPT = {"Cache-Control": "no-store"}


class NewClass(BaseModel):
    """What a new class is called."""

    name: Annotated[str, Field(max_length=80)] = ""


class Storing(BaseModel):
    """Whether images of drawings are kept."""

    keeps_images: Annotated[bool, Field(strict=True)]


class Visibility(BaseModel):
    """Whether a drawing is hidden."""

    hidden: Annotated[bool, Field(strict=True)]


def add_teacher(app: FastAPI, services: Services) -> None:
    """Routes for the teacher's page. Each needs `Authorization: Bearer`, with the token or the key of a session."""
    routes = APIRouter(prefix="/teacher", dependencies=[Depends(_expect_teacher(services))])

    @routes.post("/session")
    async def begin_session() -> dict[str, str]:
        return {"key": services.teacher.key}

    _add_classes(routes, services)
    _add_drawings(routes, services)
    app.include_router(routes)


def _expect_teacher(services: Services) -> Callable[[Request, Response], Awaitable[None]]:
    async def expect_teacher(request: Request, response: Response) -> None:
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        response.headers.update(NOT_KEPT)
        try:
            if scheme.lower() == "bearer" and services.teacher.admits(client_of(request), shown.strip()):
                return
        except TooManyTokens as error:
            wait = {"Retry-After": str(max(1, round(error.seconds)))}
            raise HTTPException(429, "too many wrong tokens from this client, try again later", wait) from None
        raise HTTPException(401, "this needs the teacher's token", {"WWW-Authenticate": "Bearer"})

    return expect_teacher


def _add_classes(routes: APIRouter, services: Services) -> None:
    classroom = services.classroom

    @routes.get("/classes")
    async def list_classes() -> dict[str, object]:
        return {
            "classes": await asyncio.to_thread(classroom.classes),
            "keeps_images": await asyncio.to_thread(services.keeps_images),
            "may_keep_images": services.stores_drawings,
        }

    @routes.post("/classes")
    async def start_class(request: Request) -> dict[str, int]:
        asked = await read_json(
            request, NewClass, 'a class, expected JSON like {"name": "7b"}, of 80 characters at most'
        )
        return {"number": await asyncio.to_thread(classroom.start, asked.name.strip())}

    @routes.put("/storing")
    async def switch_storing(request: Request) -> dict[str, bool]:
        asked = await read_json(request, Storing, 'a switch, expected JSON like {"keeps_images": false}')
        await asyncio.to_thread(classroom.keep_images, asked.keeps_images)
        return {"keeps_images": await asyncio.to_thread(services.keeps_images)}

    @routes.get("/classes/{number}/statistics")
    async def statistics(number: int) -> dict[str, object]:
        counted = await asyncio.to_thread(classroom.statistics, number)
        return counted | {"waiting": services.recorder.waiting()}

    @routes.get("/classes/{number}/export")
    async def export(number: int) -> Response:
        parts = classroom.exported(number)
        first = await asyncio.to_thread(next, parts)  # so that an unreachable database is an error, not half a file
        pieces = as_zip(itertools.chain([first], parts))
        named = {"Content-Disposition": f'attachment; filename="class-{number}.zip"'}
        return StreamingResponse(pieces, media_type="application/zip", headers=named | NOT_KEPT)


def _add_drawings(routes: APIRouter, services: Services) -> None:
    classroom = services.classroom

    @routes.get("/classes/{number}/drawings")
    async def list_drawings(
        number: int, which: Which = "all", page: Annotated[int, Query(ge=0, le=1_000_000)] = 0
    ) -> dict[str, object]:
        return await asyncio.to_thread(classroom.drawings, number, which, page)

    @routes.delete("/drawings/{drawing}/truth")
    async def retract(drawing: uuid.UUID) -> dict[str, bool]:
        return {"recorded": await services.retract(drawing)}

    @routes.put("/drawings/{drawing}/visibility")
    async def hide(request: Request, drawing: uuid.UUID) -> dict[str, bool]:
        asked = await read_json(request, Visibility, 'a visibility, expected JSON like {"hidden": true}')
        await asyncio.to_thread(classroom.hide, drawing, asked.hidden)
        return {"hidden": asked.hidden}

    @routes.delete("/drawings/{drawing}")
    async def delete(drawing: uuid.UUID) -> dict[str, bool]:
        await asyncio.to_thread(classroom.delete, drawing)
        return {"deleted": True}
