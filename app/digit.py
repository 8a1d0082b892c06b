"""Turn a picture of a digit into an image like MNIST's.

MNIST's authors scaled each black-on-white digit to fit a 20 x 20 box, averaging pixels to gray levels, and put its
center of mass at the center of a 28 x 28 image (http://yann.lecun.com/exdb/mnist/). A network trained only on such
images needs its input prepared in the same way.
"""

import numpy as np
from PIL import Image

from app.ink import NoDigit, find_ink
from app.picture import NotAPicture, TooLarge, Unreadable, read_picture, to_gray

__all__ = ["NoDigit", "NotAPicture", "TooLarge", "Unreadable", "prepare"]

SIDE = 28
BOX = 20  # the longest side of the digit
LARGE = 0.5  # a digit that is scaled at most to this
SOFT = 0.1  # loses this much of the faintest and of the fullest ink: edges blurred by enlarging are sharp again
FAINTEST = 0.1  # least ink that counts towards the digit's bounding box


def prepare(body: bytes) -> np.ndarray:
    """Return the digit in a PNG, JPEG, GIF or WebP as an MNIST image: uint8 of shape (28, 28), ink 255 on background 0.

    Raises NotAPicture, TooLarge, Unreadable or NoDigit; each is a ValueError with a one-sentence message.
    """
    return normalize(find_ink(to_gray(read_picture(body))))


def normalize(ink: np.ndarray) -> np.ndarray:
    """Scale the ink's bounding box to 20 pixels on its longer side, and center its mass in uint8 of shape (28, 28).

    Raises NoDigit if there is no ink, or only specks that vanish when scaled.
    """
    rows, columns = (np.flatnonzero((ink > FAINTEST).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise NoDigit
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(digit.shape)
    if scale <= LARGE:
        digit = ((digit - SOFT) / (1 - 2 * SOFT)).clip(0, 1)
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
