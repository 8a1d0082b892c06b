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
FAINTEST = 0.1  # least ink that counts towards the digit's bounding box
LARGE = 0.5  # a digit that is scaled at most to this
SOFT = 0.1  # loses this share of the faintest and of the fullest ink: edges blurred by enlarging are sharp again

SHARPER = ((np.arange(256) - 255 * SOFT) / (1 - 2 * SOFT)).round().clip(0, 255).astype(np.uint8)  # by ink, to 255
STEPS = np.arange(BOX)


def prepare(body: bytes) -> np.ndarray:
    """Return the digit in a PNG, JPEG, GIF or WebP as an MNIST image: uint8 of shape (28, 28), ink 255 on background 0.

    Raises NotAPicture, TooLarge, Unreadable or NoDigit; each is a ValueError with a one-sentence message.
    """
    return normalize(find_ink(to_gray(read_picture(body))))


def normalize(ink: np.ndarray) -> np.ndarray:
    """Scale the ink's bounding box to 20 pixels on its longer side, and center its mass in uint8 of shape (28, 28).

    `ink` is uint8 of shape (height, width), 0 on paper. Raises NoDigit if there is none, or only specks that vanish when
    scaled.
    """
    box = Image.fromarray((ink > 255 * FAINTEST).view(np.uint8)).getbbox()
    if not box:
        raise NoDigit
    left, top, right, bottom = box
    digit = ink[top:bottom, left:right]
    scale = BOX / max(digit.shape)
    if scale <= LARGE:
        digit = SHARPER.take(digit)
    size = [max(1, round(side * scale)) for side in digit.shape[::-1]]
    averaging = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(digit).resize(size, averaging))
    masses = [small.sum(axis=axis, dtype=np.int64) for axis in (1, 0)]
    total = int(masses[0].sum())
    if not total:
        raise NoDigit
    place = []
    for mass in masses:
        center = float(mass @ STEPS[: len(mass)]) / total
        first = min(max(round(SIDE / 2 - center), 0), SIDE - len(mass))
        place.append(slice(first, first + len(mass)))
    image = np.zeros((SIDE, SIDE), dtype=np.uint8)
    image[tuple(place)] = small
    return image
