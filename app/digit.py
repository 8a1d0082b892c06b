"""Turn a picture of a digit into an image like MNIST's.

MNIST's authors scaled each black-on-white digit to fit a 20 x 20 box, averaging pixels to gray levels, and put its
center of mass at the center of a 28 x 28 image (http://yann.lecun.com/exdb/mnist/). A network trained only on such
images needs its input prepared in the same way.
"""

import io

import numpy as np
from PIL import Image, ImageFilter, ImageOps

SIDE = 28
BOX = 20  # the longest side of the digit
LARGEST_PIXELS = 16_000_000
WORKING_SIDE = 512  # larger pictures are first averaged down to about this
LEAST_CONTRAST = 0.1  # between ink and paper; black and white differ by 1
FAINTEST = 0.1  # least ink that counts towards the digit's bounding box
SPECK = 40  # of 255: a cell of about 4 x 4 pixels with less ink than this counts as empty
FORMATS = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}  # format: the first bytes of its files


class NotAPicture(ValueError):
    """The bytes are neither a PNG nor a JPEG."""


class TooLarge(ValueError):
    """The picture has too many pixels to decode."""


class Unreadable(ValueError):
    """The file starts like a PNG or JPEG but cannot be decoded."""


class NoDigit(ValueError):
    """The picture shows no digit."""

    def __init__(self) -> None:
        super().__init__("draw something first: there is no digit in the picture")


def prepare(body: bytes) -> np.ndarray:
    """Return the digit in a PNG or JPEG as an MNIST image: uint8 of shape (28, 28), ink 255 on background 0.

    Raises NotAPicture, TooLarge, Unreadable or NoDigit; each is a ValueError with a one-sentence message.
    """
    return normalize(find_ink(to_gray(read_picture(body))))


def read_picture(body: bytes) -> Image.Image:
    """Decode the first frame of a PNG or JPEG, and apply its EXIF orientation.

    Raises NotAPicture, TooLarge or Unreadable.
    """
    if not body.startswith(tuple(FORMATS.values())):
        raise NotAPicture("the file is neither a PNG nor a JPEG, expected one of them")
    try:
        picture = Image.open(io.BytesIO(body), formats=list(FORMATS))
        width, height = picture.size
        if width * height > LARGEST_PIXELS:  # checked before decoding
            raise TooLarge(f"the picture has {width} by {height} pixels, expected at most 16 million in total")
        picture.draft("L", (2 * WORKING_SIDE, 2 * WORKING_SIDE))  # decode a large JPEG at reduced size, in gray
        picture.load()
        return ImageOps.exif_transpose(picture)
    except (TooLarge, MemoryError):
        raise
    except Exception:  # noqa: BLE001 (on corrupt files, Pillow's decoders raise almost anything)
        raise Unreadable("the picture cannot be decoded, expected a complete PNG or JPEG") from None


def to_gray(picture: Image.Image) -> np.ndarray:
    """Return luminance from 0 to 1: float32 of shape (height, width), at most about `WORKING_SIDE` pixels per side.

    Transparent pixels count as paper: white, or black if the strokes are light.
    """
    if picture.mode.startswith(("I", "F")):  # 16-bit pixels, which `convert` would clip to 8 bits
        wide = np.asarray(picture, dtype=np.float32)
        picture = Image.fromarray((wide * (255 / max(wide.max(), 1))).astype(np.uint8))
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
    """Return the amount of ink at each pixel, from 0 (paper) to 1: float32 of the same shape.

    The border of the picture is taken to be paper. Ink is dark on light or light on dark, whichever differs more from
    the paper. If the "ink" is a whole sheet, the border was the table, and the search continues on the sheet.
    Raises NoDigit if nothing stands out from the paper.
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
    """Estimate the brightness of the paper, one value or one per pixel, and the amplitude of its noise.

    Both come from a frame along the border. If the frame is uniform, as in a drawing, its median is used. Otherwise
    (uneven light) a quadratic surface is fitted to it, by least absolute deviations, so that strokes that reach the
    border hardly affect it.
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
    for _ in range(8):  # iteratively reweighted least squares
        root = np.sqrt(weights)[:, None]
        surface = np.linalg.lstsq(frame * root, values * root[:, 0], rcond=None)[0]
        residuals = np.abs(frame @ surface - values)
        weights = 1 / np.maximum(residuals, 0.005)
    return terms @ surface, float(4 * np.median(residuals))


def _find_sheet(ink: np.ndarray) -> tuple[slice, slice] | None:
    """Return the box, without its edges, of a sheet that was taken for ink: large and nearly full of it. Else None."""
    solid = ink > 0.4
    box = []
    for axis in (1, 0):
        filled = np.flatnonzero(solid.mean(axis=axis) > 0.4)
        if len(filled) < 0.5 * solid.shape[1 - axis]:
            return None
        edge = 2 + len(filled) // 20
        box.append(slice(filled[0] + edge, filled[-1] + 1 - edge))
    rows, columns = box
    inside = solid[rows, columns]
    return (rows, columns) if min(inside.shape) >= SIDE and inside.mean() > 0.75 else None


def _without_specks(ink: np.ndarray) -> np.ndarray:
    """Remove isolated specks such as grain and dust; keep ink that has enough ink around it."""
    cell = max(1, max(ink.shape) // 64)
    picture = Image.fromarray((255 * ink).astype(np.uint8))
    cells = picture.reduce(cell).point(lambda value: 255 * (value > SPECK)).filter(ImageFilter.MaxFilter(3))
    kept = np.asarray(
        cells.resize(picture.size, Image.Resampling.NEAREST, (0, 0, picture.width / cell, picture.height / cell))
    )
    return np.where(kept, ink, 0)


def normalize(ink: np.ndarray) -> np.ndarray:
    """Scale the ink's bounding box to 20 pixels on its longer side, and center its mass in uint8 of shape (28, 28).

    Raises NoDigit if there is no ink, or only specks that vanish when scaled.
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
