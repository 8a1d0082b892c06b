"""Digits as people send them: on ruled paper, in a shadow, on a sheet on a desk, cropped too tightly.

Each scene takes an MNIST digit, uint8 of shape (28, 28), and a random generator, and returns the bytes of a picture. What
is random - sizes, places, light, colors - comes from the generator alone.
"""

import io
import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw

Scene = Callable[[np.ndarray, np.random.Generator], bytes]

INK = (25, 85)  # the darkest gray of a pen, of 255
PAPER = (205, 245)


def encode(page: np.ndarray, format: str = "PNG", **options: int) -> bytes:
    """The bytes of a picture file that shows `page`: gray or RGB from 0 to 255."""
    file = io.BytesIO()
    Image.fromarray(page.round().clip(0, 255).astype(np.uint8)).save(file, format, **options)
    return file.getvalue()


def photo(page: np.ndarray, rng: np.random.Generator, grain: float = 3) -> bytes:
    """A JPEG of a gray page, with the grain of a camera: noise with this standard deviation."""
    return encode(page + rng.normal(0, grain, page.shape), "JPEG", quality=int(rng.integers(75, 96)))


def enlarge(pixels: np.ndarray, side: int) -> np.ndarray:
    """An MNIST image, `side` pixels large, as ink from 0 to 1."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255


def place(
    pixels: np.ndarray, rng: np.random.Generator, height: int, width: int, least: float, most: float
) -> np.ndarray:
    """Ink of shape (height, width), from 0 to 1: the digit's image covers this share of the shorter side, anywhere."""
    side = int(min(height, width) * rng.uniform(least, most))
    top, left = (int(rng.integers(0, length - side + 1)) for length in (height, width))
    ink = np.zeros((height, width), dtype=np.float32)
    ink[top : top + side, left : left + side] = enlarge(pixels, side)
    return ink


def draw(paper: np.ndarray | float, ink: np.ndarray, pen: float) -> np.ndarray:
    """Ink on paper, each in gray levels: `pen` where the ink is full, on paper lit evenly at 255."""
    return paper * (1 - ink * (1 - pen / 255))


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each pixel, from -1 to 1."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return y, x


# ---------------------------------------------------------------------------------------------------------------------
# Clean drawings
# ---------------------------------------------------------------------------------------------------------------------


def redrawn(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """On a page with random size, place and colors."""
    side = int(rng.integers(40, 401))
    height, width = rng.integers(side, 2 * side + 60, 2)
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    ink = np.zeros((height, width, 1), dtype=np.float32)
    ink[top : top + side, left : left + side, 0] = enlarge(pixels, side)
    while True:
        paper, strokes = rng.uniform(0, 255, (2, 3))
        if abs(np.dot(paper - strokes, (0.299, 0.587, 0.114))) > 70:  # enough contrast to read the digit
            break
    return encode(paper + (strokes - paper) * ink)


def cropped(margin: float) -> Scene:
    """Cut to the digit, with a margin in shares of its longer side; dark on light or light on dark."""

    def scene(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
        rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
        digit = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        scale = int(rng.integers(4, 17))
        size = (digit.shape[1] * scale, digit.shape[0] * scale)
        large = np.asarray(Image.fromarray(digit).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        large = np.pad(large, round(margin * max(size)))
        return encode(large if rng.random() < 0.3 else 255 - large)

    return scene


def speck(side: int) -> Scene:
    """A page of this side with a digit, and one speck apart from it."""

    def scene(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
        ink = place(pixels, rng, side, side, 0.3, 0.8)
        dot = int(rng.integers(1, 5))
        while True:
            top, left = rng.integers(0, side - dot + 1, 2)
            near = ink[max(0, top - dot) : top + 2 * dot, max(0, left - dot) : left + 2 * dot]
            if not near.any():
                break
        ink[top : top + dot, left : left + dot] = rng.uniform(0.4, 1)
        return encode(255 * (1 - ink))

    return scene


def boxed(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """In a printed box, as on a form, on clean or grainy paper."""
    height, width = (int(rng.integers(220, 400)) for _ in range(2))
    side = int(min(height, width) * rng.uniform(0.45, 0.7))
    top, left = (int(rng.integers(8, length - side - 8)) for length in (height, width))
    ink = np.zeros((height, width), dtype=np.float32)
    digit = enlarge(pixels, int(side * rng.uniform(0.75, 1.0)))
    inside = side - len(digit)
    down, right = (int(rng.integers(0, inside + 1)) for _ in range(2))
    ink[top + down : top + down + len(digit), left + right : left + right + len(digit)] = digit
    box = Image.new("L", (width, height))
    ImageDraw.Draw(box).rectangle(
        (left - 1, top - 1, left + side, top + side), outline=int(rng.integers(170, 256)), width=int(rng.integers(3, 7))
    )
    ink = np.maximum(ink, np.asarray(box, dtype=np.float32) / 255)
    page = draw(rng.uniform(*PAPER), ink, rng.uniform(*INK))
    return photo(page, rng) if rng.random() < 0.5 else encode(page)


# ---------------------------------------------------------------------------------------------------------------------
# Paper
# ---------------------------------------------------------------------------------------------------------------------


def _ruled(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = (int(rng.integers(260, 420)) for _ in range(2))
    paper = np.full((height, width), rng.uniform(*PAPER), dtype=np.float32)
    gap, thick = int(rng.integers(20, 45)), int(rng.integers(1, 4))
    paper[np.arange(height) % gap < thick] *= rng.uniform(0.5, 0.8)
    return draw(paper, place(pixels, rng, height, width, 0.4, 0.8), rng.uniform(*INK))


def ruled(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A photo of ruled paper in even light."""
    return photo(_ruled(pixels, rng), rng)


def ruled_scan(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A scan of ruled paper: no grain."""
    return encode(_ruled(pixels, rng))


def squared(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A photo of squared paper with pale lines."""
    height, width = (int(rng.integers(260, 420)) for _ in range(2))
    paper = np.full((height, width), rng.uniform(*PAPER), dtype=np.float32)
    gap, pale = int(rng.integers(18, 36)), rng.uniform(0.9, 0.96)
    lines = (np.arange(height)[:, None] % gap < 1) | (np.arange(width)[None] % gap < 1)
    paper[lines] *= pale
    return photo(draw(paper, place(pixels, rng, height, width, 0.4, 0.8), rng.uniform(*INK)), rng)


def pencil(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A photo of a soft pencil: strokes that are pale, and broken by the paper's grain."""
    height, width = (int(rng.integers(260, 420)) for _ in range(2))
    ink = place(pixels, rng, height, width, 0.4, 0.8)
    return photo(draw(rng.uniform(*PAPER), ink * rng.uniform(0.8, 1, ink.shape), rng.uniform(90, 140)), rng)


def chalk(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A photo of chalk on a blackboard."""
    height, width = (int(rng.integers(260, 420)) for _ in range(2))
    board, ink = rng.uniform(30, 70), place(pixels, rng, height, width, 0.4, 0.8)
    strokes = ink * rng.uniform(0.8, 1, ink.shape) * rng.uniform(130, 180)
    return photo(board * _gradient(height, width, rng) + strokes, rng)


def thin(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A photo of strokes as thin as a ballpoint's: the middle of the digit's strokes."""
    height, width = (int(rng.integers(260, 420)) for _ in range(2))
    ink = place(pixels, rng, height, width, 0.4, 0.8)
    return photo(draw(rng.uniform(*PAPER), ((ink - 0.5) / 0.3).clip(0, 1), rng.uniform(*INK)), rng)


# ---------------------------------------------------------------------------------------------------------------------
# Light, and what lies around the paper
# ---------------------------------------------------------------------------------------------------------------------


def _gradient(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Light that falls by up to half from one side, or from the middle."""
    y, x = _grid(height, width)
    angle, fall = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.25)
    if rng.random() < 0.3:
        return 1 - fall * (x**2 + y**2)
    return 1 - fall + fall * (math.cos(angle) * x + math.sin(angle) * y) / math.sqrt(2)


def even_light(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A photo of blank paper in even light."""
    height, width = (int(rng.integers(260, 420)) for _ in range(2))
    return photo(draw(rng.uniform(*PAPER), place(pixels, rng, height, width, 0.4, 0.8), rng.uniform(*INK)), rng)


def gradient_light(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A photo of blank paper in light that falls off."""
    height, width = (int(rng.integers(260, 420)) for _ in range(2))
    paper = rng.uniform(*PAPER) * _gradient(height, width, rng)
    return photo(draw(paper, place(pixels, rng, height, width, 0.4, 0.8), rng.uniform(*INK)), rng)


def shadow(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A photo with the hard edge of a shadow across the paper."""
    height, width = (int(rng.integers(260, 420)) for _ in range(2))
    y, x = _grid(height, width)
    angle, offset = rng.uniform(0, 2 * math.pi), rng.uniform(-0.5, 0.5)
    beyond = math.cos(angle) * x + math.sin(angle) * y - offset
    light = 1 - rng.uniform(0.25, 0.5) * (beyond / rng.uniform(0.01, 0.05) + 0.5).clip(0, 1)
    paper = rng.uniform(*PAPER) * light
    return photo(draw(paper, place(pixels, rng, height, width, 0.4, 0.8), rng.uniform(*INK)), rng)


def on_a_desk(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """A photo of a tilted sheet on a dark or a wooden desk."""
    height, width = (int(rng.integers(320, 480)) for _ in range(2))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if rng.random() < 0.5:
        desk = np.full((height, width), rng.uniform(30, 90), dtype=np.float32)
    else:
        along, across = (x, y) if rng.random() < 0.5 else (y, x)
        waves = np.sin(across / rng.uniform(3, 9) + 1.5 * np.sin(along / rng.uniform(60, 150)))
        desk = rng.uniform(80, 130) + rng.uniform(8, 18) * waves
    sheet_height, sheet_width = (int(length * rng.uniform(0.6, 0.85)) for length in (height, width))
    sheet = draw(rng.uniform(*PAPER), place(pixels, rng, sheet_height, sheet_width, 0.45, 0.85), rng.uniform(*INK))
    tilt = rng.uniform(-15, 15)
    paste = Image.fromarray(sheet).rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    mask = Image.new("F", (sheet_width, sheet_height), 1.0).rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    page = Image.fromarray(desk.astype(np.float32))
    top, left = (round((a - b) * rng.uniform(0.35, 0.65)) for a, b in ((height, paste.height), (width, paste.width)))
    box = (left, top, left + paste.width, top + paste.height)
    under = np.asarray(page.crop(box))
    solid = np.asarray(mask).clip(0, 1)
    page.paste(Image.fromarray(under * (1 - solid) + np.asarray(paste) * solid), box)
    return photo(np.asarray(page) * _gradient(height, width, rng), rng)


SCENES: Mapping[str, Scene] = {
    "redrawn": redrawn,
    "cropped to a margin of 0 %": cropped(0),
    "cropped to a margin of 5 %": cropped(0.05),
    "cropped to a margin of 10 %": cropped(0.1),
    "one speck in 280 x 280 pixels": speck(280),
    "one speck in 1,000 x 1,000 pixels": speck(1_000),
    "in a printed box": boxed,
    "ruled paper, photo": ruled,
    "ruled paper, scan": ruled_scan,
    "squared paper": squared,
    "hard edge of a shadow": shadow,
    "tilted sheet on a desk": on_a_desk,
    "even light": even_light,
    "light that falls off": gradient_light,
    "pencil": pencil,
    "chalk": chalk,
    "thin pen": thin,
}
