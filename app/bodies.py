"""Read request bodies: a picture's bytes, or a correction as JSON."""

from contextlib import suppress
from typing import Annotated

from fastapi import HTTPException, Request
from pydantic import BaseModel, Field, ValidationError

from app.network import DIGITS

LARGEST_BODY = 2 * 1024 * 1024


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
