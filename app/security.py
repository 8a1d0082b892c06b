"""What other sites may do with this server: nothing, unless the settings allow it."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page loads everything from this server, except pictures that it makes itself (blob: and data:).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # they change nothing
WRONG_HOST = "this server does not go by that name, expected one of those in APP_HOSTS"
OTHER_SITE = "this request comes from another site, expected this server's own page"


class Security:
    """Middleware that refuses requests to unknown hosts and from other sites, and adds security headers to responses.

    `hosts`: names of this server, where `*.example.org` stands for all names below example.org, and `*` for any. IP
    addresses and localhost are always accepted: another site cannot make a browser take its own name for one of them,
    which is what the check is for (DNS rebinding). `frames`: sites that may show the page in a frame.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], frames: Sequence[str]) -> None:
        self._app, self._hosts = app, [host.lower() for host in hosts]
        self._is_ours = lru_cache(self._looks_ours)
        headers = {
            "Content-Security-Policy": POLICY + (" ".join(frames) or "'none'"),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_ours(host):
            return await JSONResponse({"error": WRONG_HOST}, 400)(scope, receive, send_safely)
        if scope["method"] not in SAFE_METHODS and not self._is_own_page(headers, host):
            return await JSONResponse({"error": OTHER_SITE}, 403)(scope, receive, send_safely)
        return await self._app(scope, receive, send_safely)

    def _looks_ours(self, address: str) -> bool:
        """Return whether this server goes by the host in an address like `example.org:8000`."""
        try:
            host = urlsplit(f"//{address}").hostname or ""
        except ValueError:
            return False
        return _is_local(host) or any(_matches(host, pattern) for pattern in self._hosts)

    def _is_own_page(self, headers: dict[bytes, bytes], host: str) -> bool:
        """Return whether a browser sent this from a page of this server, or no browser sent it.

        Browsers tell over HTTPS and on localhost where a request comes from (Sec-Fetch-Site), also behind a proxy;
        elsewhere they name the page's site (Origin). Other programs send neither.
        """
        if site := headers.get(b"sec-fetch-site"):
            return site in (b"same-origin", b"none")
        if b"origin" not in headers:
            return True
        origin = headers[b"origin"].decode("latin-1").rpartition("//")[2]
        return origin == host or any(_matches(origin.partition(":")[0], name) for name in self._hosts if name != "*")


def _is_local(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _matches(host: str, pattern: str) -> bool:
    return pattern == "*" or host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))
