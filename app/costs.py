"""What a picture costs, known before it is decoded. A drawing of the page costs 1."""

import io
import struct

from PIL import Image

from app.picture import FORMATS, LARGEST_PIXELS

PNG = b"\x89PNG\r\n\x1a\n"
PIXELS = 50_000  # that cost 1
BYTES = 64 * 1024  # that cost 1 while they arrive
SMALL_PIXELS = 280 * 280
SMALL_BYTES = 32 * 1024


def pixels_in(body: bytes) -> int:
    """Return the number of pixels that have to be decoded, from a picture's header: 0 if it will be refused."""
    width, height = _size(body)
    return width * height if width * height <= LARGEST_PIXELS else 0


def _size(body: bytes) -> tuple[int, int]:
    if body.startswith(PNG) and len(body) >= 24:
        return struct.unpack(">II", body[16:24])
    try:
        with Image.open(io.BytesIO(body), formats=list(FORMATS)) as picture:
            return picture.size
    except Exception:  # noqa: BLE001 (on corrupt files, Pillow raises almost anything; the decoder will say what is wrong)
        return 0, 0


def is_small(body: bytes) -> bool:
    """Return whether decoding takes less time than handing the picture to another thread: a small PNG."""
    return len(body) <= SMALL_BYTES and body.startswith(PNG) and pixels_in(body) <= SMALL_PIXELS
