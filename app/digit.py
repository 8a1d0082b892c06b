"""From any picture of a digit to what MNIST's makers would have made of it.

They took black digits on white paper, scaled each into a box of 20 by 20 pixels with grey levels from averaging, and put
its centre of mass at the centre of 28 by 28 (http://yann.lecun.com/exdb/mnist/). A network that has learned from such
images alone has to be given such images.
"""

import io

import numpy as np
from PIL import Image, ImageFilter, ImageOps

SIDE = 28
BOX = 20  # the longest side of the digit
LARGEST_PIXELS = 16_000_000
WORKING_SIDE = 512  # a larger picture is averaged down to about this first
LEAST_CONTRAST = 0.1  # between ink and paper, where black and white are 1 apart
FAINTEST = 0.1  # ink that belongs to the digit, for its box alone
SPECK = 40  # of 255: less ink than that in a cell of some four pixels a side is none
FORMATS = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}  # and how such a file begins


class NotAPicture(ValueError):
    """The bytes are neither a PNG nor a JPEG."""


class TooLarge(ValueError):
    """The picture has more pixels than are decoded."""


class Unreadable(ValueError):
    """A PNG or JPEG, by its beginning, that cannot be decoded."""


class NoDigit(ValueError):
    """Nothing is drawn."""

    def __init__(self) -> None:
        super().__init__("draw something first: there is no digit on the picture")


def prepare(body: bytes) -> np.ndarray:
    """The digit on a PNG or JPEG, as MNIST has them: uint8 of shape (28, 28), ink 255 on 0.

    Raises NotAPicture, TooLarge, Unreadable or NoDigit, all of them ValueErrors of one sentence.
    """
    return normalize(find_ink(to_gray(read_picture(body))))


def read_picture(body: bytes) -> Image.Image:
    """Decode a PNG or JPEG, its first frame, the way up that the camera was held. Raises as `prepare`."""
    if not body.startswith(tuple(FORMATS.values())):
        raise NotAPicture("this is neither a PNG nor a JPEG, expected one of them")
    try:
        picture = Image.open(io.BytesIO(body), formats=list(FORMATS))
        width, height = picture.size
        if width * height > LARGEST_PIXELS:  # known before anything is decoded
            raise TooLarge(f"the picture has {width} by {height} pixels, expected at most 16 million in all")
        picture.draft("L", (2 * WORKING_SIDE, 2 * WORKING_SIDE))  # a large JPEG is decoded smaller, and in grey
        picture.load()
        return ImageOps.exif_transpose(picture)
    except (TooLarge, MemoryError):
        raise
    except Exception:  # noqa: BLE001 (torn pictures make Pillow's decoders raise nearly anything)
        raise Unreadable("the picture cannot be decoded, expected a whole PNG or JPEG") from None


def to_gray(picture: Image.Image) -> np.ndarray:
    """Luminance from 0 to 1, float32 of shape (height, width), of at most some `WORKING_SIDE` pixels a side.

    What is transparent is paper: white, or black under strokes that are light.
    """
    if picture.mode.startswith(("I", "F")):  # 16 bits, which Pillow would clip to 8
        values = np.asarray(picture, dtype=np.float32)
        picture = Image.fromarray((values * (255 / max(values.max(), 1))).astype(np.uint8))
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    picture = picture.convert("LA" if transparent else "L")
    factor = max(1, max(picture.size) // WORKING_SIDE)
    if factor > 1:
        picture = picture.reduce(factor)
    values = np.asarray(picture, dtype=np.float32) / 255
    if not transparent:
        return values
    gray, alpha = values[..., 0], values[..., 1]
    strokes = np.average(gray, weights=alpha) if alpha.any() else 0.0
    paper = 0.0 if strokes > 0.5 else 1.0
    return gray * alpha + paper * (1 - alpha)


def find_ink(gray: np.ndarray) -> np.ndarray:
    """How much ink there is at each pixel, from 0 for paper to 1: float32 of the same shape.

    Paper is what lies along the border; dark strokes on light paper and light ones on dark are told by which of the two
    stands out further from it. Where that is a whole sheet, the border was the table, and the digit is on the sheet.
    Raises NoDigit where nothing stands out.
    """
    paper, noise = _paper(gray)
    contrast = gray - paper
    dark, light = -contrast.min(), contrast.max()
    ink = -contrast if dark > light else contrast
    full = max(dark, light)
    if full < max(LEAST_CONTRAST, 2 * noise):
        raise NoDigit
    ink = np.clip((ink - noise) / (full - noise), 0, 1)
    if sheet := _find_sheet(ink):
        return find_ink(gray[sheet])
    return _without_specks(ink) if noise else ink


def _paper(gray: np.ndarray) -> tuple[np.ndarray | float, float]:
    """The brightness of the paper at each pixel, and how far its grain goes from it.

    Read from a frame along the border: its median, where all of the frame is alike, as in a drawing; else, under uneven
    light, a surface of the second degree through it, which strokes that reach the border hardly move.
    """
    height, width = gray.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    edge = (np.abs(y) > 0.88) | (np.abs(x) > 0.88)
    values = gray[edge]
    median = np.median(values)
    if np.median(np.abs(values - median)) < 0.01:
        return float(median), 0.0
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    frame = terms[edge]
    weights = np.ones_like(values)
    for _ in range(8):  # least absolute deviations, by reweighting
        root = np.sqrt(weights)[:, None]
        surface = np.linalg.lstsq(frame * root, values * root[:, 0], rcond=None)[0]
        away = np.abs(frame @ surface - values)
        weights = 1 / np.maximum(away, 0.005)
    return terms @ surface, float(4 * np.median(away))


def _find_sheet(ink: np.ndarray) -> tuple[slice, slice] | None:
    """Where a sheet of paper lies that was taken for ink, less its edge: a box, large and nearly full of it."""
    solid = ink > 0.4
    box = []
    for axis in (1, 0):
        filled = np.flatnonzero(solid.mean(axis=axis) > 0.4)
        if len(filled) < 0.5 * solid.shape[1 - axis]:
            return None
        edge = 2 + len(filled) // 20
        box.append(slice(filled[0] + edge, filled[-1] + 1 - edge))
    inside = solid[tuple(box)]
    return tuple(box) if min(inside.shape) >= SIDE and inside.mean() > 0.75 else None


def _without_specks(ink: np.ndarray) -> np.ndarray:
    """Ink where there is enough of it around: grain and dust that stand alone are taken away."""
    cell = max(1, max(ink.shape) // 64)
    picture = Image.fromarray((255 * ink).astype(np.uint8))
    cells = picture.reduce(cell).point(lambda value: 255 * (value > SPECK)).filter(ImageFilter.MaxFilter(3))
    kept = np.asarray(
        cells.resize(picture.size, Image.Resampling.NEAREST, (0, 0, picture.width / cell, picture.height / cell))
    )
    return np.where(kept, ink, 0)


def normalize(ink: np.ndarray) -> np.ndarray:
    """Scale the ink's box to 20 pixels by averaging, and put its centre of mass at the centre of (28, 28), as uint8.

    Raises NoDigit where there is no more than specks.
    """
    rows, columns = (np.flatnonzero((ink > FAINTEST).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise NoDigit
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(digit.shape)
    size = [max(1, round(side * scale)) for side in digit.shape[::-1]]
    averaging = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray((255 * digit).round().astype(np.uint8)).resize(size, averaging))
    total = small.sum(dtype=np.int64)
    if not total:
        raise NoDigit
    image = np.zeros((SIDE, SIDE), dtype=np.uint8)
    place = []
    for axis, length in enumerate(small.shape):
        centre = (small.sum(axis=1 - axis) * np.arange(length)).sum() / total
        first = int(np.clip(round(SIDE / 2 - centre), 0, SIDE - length))
        place.append(slice(first, first + length))
    image[tuple(place)] = small
    return image
