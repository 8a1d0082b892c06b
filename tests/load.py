"""Clients that ask the app as its page does, lean enough to leave the server its core."""

import asyncio
import io
import random
import time
import uuid
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import uvloop
from PIL import Image

SIDE = 112  # pixels that the page sends (SENT_SIDE in drawing.js)
CANVAS = 280  # pixels that it draws on
BETWEEN = 0.06  # seconds between its requests
SLOWEST = 1.0  # most seconds between them while the server asks to slow down
ATTEMPTS = 20  # how often it sends a refused correction


def page_picture(pixels: np.ndarray) -> bytes:
    """Return an MNIST digit of shape (28, 28), dark on light, as the page sends it: a PNG without alpha."""
    large = np.asarray(Image.fromarray(pixels).resize((CANVAS, CANVAS), Image.Resampling.BICUBIC), dtype=np.float32)
    sharp = (127.5 - 8 * (large - 127.5)).clip(0, 255).astype(np.uint8)  # edges like those of the page's pen
    file = io.BytesIO()
    Image.fromarray(sharp).resize((SIDE, SIDE), Image.Resampling.BOX).convert("RGB").save(file, "PNG")
    return file.getvalue()


class Connection(asyncio.Protocol):
    """One connection to the server: one request at a time. Of the response, only status and retry are read."""

    @classmethod
    async def open(cls, address: str) -> "Connection":
        parts = urlsplit(address)
        self = cls()
        self._host = parts.netloc.encode()
        self._transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: self, parts.hostname, parts.port
        )
        return self

    async def post(self, path: str, body: bytes, kind: bytes = b"image/png") -> int:
        """Send a request and return the status of the response. Raises ConnectionError if there is none."""
        self._answer, self._said = asyncio.get_running_loop().create_future(), b""
        self._transport.write(
            b"POST /%b HTTP/1.1\r\nHost: %b\r\nOrigin: http://%b\r\nSec-Fetch-Site: same-origin\r\nAccept: */*\r\n"
            b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\r\n"
            b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n"
            % (path.encode(), self._host, self._host, kind, len(body))
            + body
        )
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._said += data
        head, end, body = self._said.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]):
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "_answer") and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        self._transport.close()


# ---------------------------------------------------------------------------------------------------------------------
# As many predictions as possible, or at a fixed rate; each of a drawing of its own
# ---------------------------------------------------------------------------------------------------------------------


async def _load(address: str, bodies: list[bytes], connections: int, seconds: float, per_second: float | None):
    took, end = [], time.perf_counter() + seconds

    async def ask(first: float) -> None:
        connection, due = await Connection.open(address), time.perf_counter() + first
        while time.perf_counter() < end:
            if per_second:  # fixed schedule: latency includes waiting for a late predecessor
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            begin = due if per_second else time.perf_counter()
            due += connections / per_second if per_second else 0
            status = await connection.post(f"predict?drawing={uuid.uuid4()}", random.choice(bodies))
            assert status == 200, status
            took.append(time.perf_counter() - begin)
        connection.close()

    await asyncio.gather(*(ask(i / (per_second or 1)) for i in range(connections)))
    return took


def load(address: str, bodies: list[bytes], connections: int, seconds: float, per_second: float | None) -> list[float]:
    """Send predictions: `per_second` in all or, if None, as many as possible. Returns the latency of each in seconds."""
    return uvloop.run(_load(address, bodies, connections, seconds, per_second))


# ---------------------------------------------------------------------------------------------------------------------
# A class
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What the students of a class saw."""

    waits: list[float] = field(default_factory=list)  # seconds from lifting the pen to the last answer
    corrections: int = 0
    refused: int = 0  # corrections refused at first; the page sends them again
    lost: int = 0  # corrections that the page gave up
    slowed: int = 0  # predictions refused


async def _student(address: str, bodies: list[bytes], end: float, seen: Seen) -> None:
    """Draw, look at the last answer, tell which digit it was, and draw the next one: as app.js does."""
    connection, pace = await Connection.open(address), BETWEEN
    await asyncio.sleep(random.uniform(0, 2))
    while time.perf_counter() < end:
        drawing, lifted, answered = uuid.uuid4(), time.perf_counter() + random.uniform(1, 3), False
        while not answered:
            begin = time.perf_counter()
            status = await connection.post(f"predict?drawing={drawing}", random.choice(bodies))
            answered = status == 200 and begin >= lifted
            if answered:
                seen.waits.append(time.perf_counter() - lifted)
            await asyncio.sleep(max(0.0, begin + pace - time.perf_counter()))
            pace = max(0.9 * pace, BETWEEN) if status == 200 else min(2 * pace, SLOWEST)
            if status != 200:
                seen.slowed += 1
                await asyncio.sleep(pace * random.random())
        await asyncio.sleep(random.uniform(0.3, 1))
        await _tell(connection, drawing, seen)
    connection.close()


async def _tell(connection: Connection, drawing: uuid.UUID, seen: Seen) -> None:
    for attempt in range(ATTEMPTS):
        status = await connection.post(f"drawings/{drawing}/truth", b'{"digit": 7}', b"application/json")
        if status == 200:
            seen.corrections += 1
            return
        seen.refused += attempt == 0
        await asyncio.sleep(SLOWEST * random.uniform(0.5, 1))
    seen.lost += 1


async def _teach(address: str, bodies: list[bytes], students: int, seconds: float) -> Seen:
    seen, end = Seen(), time.perf_counter() + seconds
    await asyncio.gather(*(_student(address, bodies, end, seen) for _ in range(students)))
    return seen


def teach(address: str, bodies: list[bytes], students: int, seconds: float) -> Seen:
    """Let students draw behind one address, and return what they saw."""
    return uvloop.run(_teach(address, bodies, students, seconds))
