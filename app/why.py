"""The addresses behind "Look inside" and "Compare": they are given the 28 x 28 image that the page already has.

The page asks them only while one of the two is open.
"""

import asyncio

import numpy as np
from fastapi import FastAPI, HTTPException, Request

from app.bodies import read_body
from app.digit import SIDE
from app.inside import Inside
from app.network import Network
from app.services import Services


def add_why(app: FastAPI, services: Services, other: Network) -> None:
    """Routes that show why the network answers as it does, and what another network answers."""
    inside = Inside(services.network)

    @app.post("/inside")
    async def look(request: Request) -> dict[str, object]:
        services.admit(services.requests, request)
        return await asyncio.to_thread(inside.look, await read_image(request))

    @app.get("/compare")
    async def compared() -> dict[str, object]:
        return other.about

    @app.post("/compare")
    async def compare(request: Request) -> dict[str, object]:
        services.admit(services.requests, request)
        prediction = await asyncio.to_thread(other.predict, await read_image(request))
        return {
            "digit": prediction.digit,
            "confidence": prediction.confidence,
            "probabilities": prediction.probabilities,
        }


async def read_image(request: Request) -> np.ndarray:
    """Return the image in the request's body, uint8 of shape (28, 28).

    Raises what `read_body` raises, and HTTPException (422) if the body is not one byte per pixel.
    """
    body = await read_body(request)
    if len(body) != SIDE * SIDE:
        raise HTTPException(
            422, f"the body has {len(body)} bytes, expected an image of {SIDE} x {SIDE}, a byte per pixel"
        )
    return np.frombuffer(body, dtype=np.uint8).reshape(SIDE, SIDE)
