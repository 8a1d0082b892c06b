"""A class as one zip file, made while it is sent: `drawings.csv`, and each drawing as a PNG like MNIST's images."""

import csv
import io
import zipfile
from collections.abc import Iterable, Iterator, Sequence

from PIL import Image

from app.digit import SIDE
from app.store import Drawing

COLUMNS = ("id", "drawn_at", "network", "prediction", "confidence", "truth", "image", "doubt")


class _Sink(io.RawIOBase):
    """Collects what is written until it is taken. It cannot seek, so the zip file needs nothing of what was sent."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:  # type: ignore[override]  # zipfile writes bytes alone
        self._written += content
        return len(content)

    def take(self) -> bytes:
        content, self._written = bytes(self._written), bytearray()
        return content


def as_zip(parts: Iterable[Sequence[Drawing]]) -> Iterator[bytes]:
    """Return the pieces of a zip file of drawings: `images/ID.png`, 28 x 28 gray pixels, for those with an image, and
    last `drawings.csv`, one row per drawing. An empty cell is an unknown truth, an image that was not stored, or no doubt.
    """
    sink, table = _Sink(), io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(COLUMNS)
    with zipfile.ZipFile(sink, "w") as archive:  # PNGs are compressed already
        for part in parts:
            for drawing in part:
                rows.writerow(_row(drawing))
                if drawing.image:
                    archive.writestr(_image_name(drawing), _as_png(drawing.image))
            yield sink.take()
        archive.writestr("drawings.csv", table.getvalue(), zipfile.ZIP_DEFLATED)
    yield sink.take()


def _row(drawing: Drawing) -> list[object]:
    image = _image_name(drawing) if drawing.image else ""
    when, confidence = drawing.drawn_at.isoformat(), f"{drawing.confidence:.6f}"
    return [drawing.id, when, drawing.network, drawing.prediction, confidence, drawing.truth, image, drawing.doubt]


def _image_name(drawing: Drawing) -> str:
    return f"images/{drawing.id}.png"


def _as_png(image: bytes) -> bytes:
    file = io.BytesIO()
    Image.frombytes("L", (SIDE, SIDE), image).save(file, "PNG")
    return file.getvalue()
