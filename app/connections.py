"""Limits on connections, so that clients that send slowly, endlessly or nothing do not keep others out."""

import asyncio
from collections import Counter

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

LARGEST_HEADER = 32 * 1024
LONG_HEADER = "the request's header is larger than 32 KiB, expected a smaller one"


class ConnectionLimits:
    """How many connections may be open, in all and per client, and how long each may wait for its client.

    Behind a proxy, every connection is the proxy's.
    """

    def __init__(self, total: int, per_client: int, header_seconds: float, body_seconds: float) -> None:
        self._total, self._per_client = total, per_client
        self.seconds = {"header": header_seconds, "body": body_seconds}
        self._open: Counter[str] = Counter()

    def admit(self, client: str) -> bool:
        """Count a connection of this client, and return whether it may stay open."""
        self._open[client] += 1
        return self._open.total() <= self._total and self._open[client] <= self._per_client

    def release(self, client: str) -> None:
        """Count one connection of this client less."""
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]


class LimitedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol, with limits on the size of the header and on the time that a client takes."""

    limits: ConnectionLimits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._reading: str | None = "header"  # the part of a request that has begun and is not complete
        self._timed: str | None = None  # the part for which the timer runs
        self._timer: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None  # runs while the client does not read its response
        self._header_bytes = 0
        if not self.limits.admit(self._address):
            self._refuse(503, "too many connections are open, try again in a moment", b"retry-after: 1\r\n")
        self._time()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._reading == "header":
            self._header_bytes += len(data)
            if self._header_bytes > LARGEST_HEADER:
                self._refuse(431, LONG_HEADER)
        if self._reading != self._timed:
            self._time()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading, self._header_bytes = "header", 0

    def on_headers_complete(self) -> None:
        self._reading = "body"
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > LARGEST_HEADER:
            self._refuse(431, LONG_HEADER)
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading = None
        if not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(self.limits.seconds["body"], self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck:
            self._stuck.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reading = None
        self._time()
        if self._stuck:
            self._stuck.cancel()
        self.limits.release(self._address)
        super().connection_lost(exc)

    def _time(self) -> None:
        """Let the timer run for the part that is being read now."""
        if self._timer:
            self._timer.cancel()
        self._timed, self._timer = self._reading, None
        if self._reading:
            self._timer = self.loop.call_later(self.limits.seconds[self._reading], self._give_up)

    def _give_up(self) -> None:
        """Close a connection whose client took too long; say so unless it never sent anything, as browsers' spare ones."""
        if self._reading == "body" or self._header_bytes:
            self._refuse(408, "the request did not arrive in time, try again with a better connection")
        else:
            self.transport.close()

    def _refuse(self, status: int, sentence: str, header: bytes = b"") -> None:
        """Send an error, unless this request has a response or an earlier one's is on its way, and close the connection."""
        between = not self.cycle or (self.cycle.response_complete and self._reading == "header")
        if between or not self.cycle.response_started:
            content = b'{"error":"%b"}' % sentence.encode()
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n" % len(content)
            self.transport.write(STATUS_LINE[status] + head + header + b"\r\n" + content)
        self.transport.close()
