"""One line of log per request, without what the user sent."""

import logging
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics import Metrics

logger = logging.getLogger("app.server")


class AccessLog:
    """Middleware that logs and counts every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begin, status = time.perf_counter(), 500

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except ClientDisconnect:
            status = 499  # nginx's code for a client that closed the connection
        finally:
            route = getattr(scope.get("route"), "path", "/")  # not the URL as sent: the log keeps no user input
            self._metrics.requests.labels(route, status).inc()
            took = round(1_000 * (time.perf_counter() - begin), 1)
            about = {"method": scope["method"], "route": route, "status": status, "milliseconds": took}
            logger.info("request", extra=about)
