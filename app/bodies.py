"""Read request bodies: a picture's bytes, a correction or a teacher's wish as JSON."""

from contextlib import suppress
from typing import Annotated, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect

from app.network import DIGITS

LARGEST_BODY = 8 * 1024 * 1024  # a phone's photo of 12 megapixels has 3 to 6 MiB
Content = TypeVar("Content", bound=BaseModel)


class Correction(BaseModel):
    """The correct digit of a drawing, according to the user."""

    digit: Annotated[int, Field(strict=True, ge=0, lt=DIGITS)]


async def read_body(request: Request) -> bytes:
    """Return the request body.

    Raises HTTPException (413) if it is larger than LARGEST_BODY, and ClientDisconnect if the client does not finish it.
    """
    body, more = bytearray(), announced_bytes(request) <= LARGEST_BODY
    while more and len(body) <= LARGEST_BODY:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if not more and len(body) <= LARGEST_BODY:
            return bytes(body)
    raise HTTPException(413, "the file is larger than 8 MiB, expected a smaller picture")


def announced_bytes(request: Request) -> int:
    """Return the body's size according to the header; that of the largest body if the header does not say."""
    announced = request.headers.get("content-length")
    return LARGEST_BODY if announced is None else int(announced)


async def read_correction(request: Request) -> Correction:
    """Parse the request body. Raises what `read_json` raises."""
    return await read_json(
        request, Correction, 'a correction, expected JSON like {"digit": 7}, with a digit from 0 to 9'
    )


async def read_json(request: Request, kind: type[Content], expected: str) -> Content:
    """Parse the request body. Raises HTTPException: 422 if it is not `expected`, 413 if it is too large.

    The content type must be JSON: pages of other origins cannot send that without a preflight request.
    """
    named = request.headers.get("content-type", "").split(";")[0]
    body = await read_body(request)
    with suppress(ValidationError):
        if named == "application/json":
            return kind.model_validate_json(body)
    raise HTTPException(422, f"the body is not {expected}")
