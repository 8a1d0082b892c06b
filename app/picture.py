"""Read a picture file: from bytes to luminance."""

import io

import numpy as np
from PIL import Image, ImageOps

LARGEST_PIXELS = 16_000_000
LARGEST_SIDE = (
    10_000  # a decoder may work row by row: 16 million pixels in one column cost it far more than in a square
)
WORKING_SIDE = 512  # larger pictures are first averaged down to about this
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
NAMES = "a PNG, JPEG, GIF or WebP"
BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"RIFF")  # RIFF: WebP's container


class NotAPicture(ValueError):
    """The bytes are in none of the formats that are read."""


class TooLarge(ValueError):
    """The picture has too many pixels to decode."""


class Unreadable(ValueError):
    """The file starts like a picture but cannot be decoded."""


def read_picture(body: bytes) -> Image.Image:
    """Decode the first frame of a PNG, JPEG, GIF or WebP, and apply its EXIF orientation.

    Raises NotAPicture, TooLarge or Unreadable.
    """
    if not body.startswith(BEGINNINGS) or (body.startswith(b"RIFF") and body[8:12] != b"WEBP"):
        raise NotAPicture(f"the file is not {NAMES}, expected one of them")
    try:
        picture = Image.open(io.BytesIO(body), formats=FORMATS)
        _refuse_large(*picture.size)  # before decoding
        picture.draft("L", (2 * WORKING_SIDE, 2 * WORKING_SIDE))  # decode a large JPEG at reduced size, in gray
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        return picture
    except (TooLarge, MemoryError):
        raise
    except Exception:  # noqa: BLE001 (on corrupt files, Pillow's decoders raise almost anything)
        raise Unreadable(f"the picture cannot be decoded, expected {NAMES} that is complete") from None


def _refuse_large(width: int, height: int) -> None:
    if max(width, height) > LARGEST_SIDE or width * height > LARGEST_PIXELS:
        most = f"at most {LARGEST_SIDE:,} on each side and {LARGEST_PIXELS // 1_000_000} million in total"
        raise TooLarge(f"the picture has {width:,} by {height:,} pixels, expected {most}")


def to_gray(picture: Image.Image) -> np.ndarray:
    """Return luminance: uint8 of shape (height, width), at most about `WORKING_SIDE` pixels per side.

    Transparent pixels count as paper: white, or black if the strokes are light.
    """
    if picture.mode.startswith("I"):
        picture = _to_8_bits(picture)
    transparent = _is_transparent(picture)
    picture = picture.convert("LA" if transparent else "L")
    factor = max(1, max(picture.size) // WORKING_SIDE)
    if factor > 1:
        picture = picture.reduce(factor)
    if not transparent:
        return np.asarray(picture)
    gray, alpha = (np.asarray(band, dtype=np.float32) / 255 for band in picture.split())
    strokes = np.average(gray, weights=alpha) if alpha.any() else 0.0
    paper = 0.0 if strokes > 0.5 else 1.0
    return (255 * (gray * alpha + paper * (1 - alpha))).round().astype(np.uint8)


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Stretch 16-bit pixels, of which a picture may use a small part of the range, to all of 0 to 255."""
    wide = np.asarray(picture, dtype=np.float32)
    darkest, lightest = wide.min(), wide.max()
    return Image.fromarray((255 * (wide - darkest) / max(lightest - darkest, 1)).round().astype(np.uint8))


def _is_transparent(picture: Image.Image) -> bool:
    """Whether any pixel is: a page's canvas has an alpha channel, but every pixel of it is opaque."""
    if "A" in picture.getbands():
        return picture.getchannel("A").getextrema() != (255, 255)
    return "transparency" in picture.info
