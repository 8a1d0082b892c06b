"""The addresses of the projector: the room's drawings as they come, and where students open the page."""

import asyncio
import functools
import io
import ipaddress
from urllib.parse import urlsplit

import segno
from fastapi import FastAPI, Request, Response

from app.services import Services

LONGEST_ADDRESS = 500


def add_room(app: FastAPI, services: Services, address: str) -> None:
    """Routes for the projector. `address`: where students open the page; "" is where this request came."""

    def given(request: Request) -> str:
        return (address or str(request.base_url))[:LONGEST_ADDRESS]

    @app.get("/wall")
    async def wall(request: Request) -> dict[str, object]:
        services.admit(services.requests, request)
        return await asyncio.to_thread(services.classroom.wall)

    @app.get("/address")
    async def show_address(request: Request) -> dict[str, object]:
        return {"address": given(request), "only_here": _is_loopback(given(request))}

    @app.get("/address.svg")
    def show_address_as_code(request: Request) -> Response:
        services.admit(services.requests, request)
        return Response(_as_qr_code(given(request)), media_type="image/svg+xml", headers={"Cache-Control": "no-store"})


def _is_loopback(address: str) -> bool:
    """Return whether only this machine can open the address."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@functools.lru_cache(maxsize=16)
def _as_qr_code(address: str) -> bytes:
    """Return an address as an SVG picture, dark on light whatever the page's colors, since cameras expect that."""
    file = io.BytesIO()
    segno.make_qr(address, error="m").save(file, kind="svg", dark="#000", light="#fff", scale=4, xmldecl=False)
    return file.getvalue()
