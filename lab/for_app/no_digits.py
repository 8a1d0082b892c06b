"""Pictures that show no single digit: two digits, a letter, a face, a tap. They are drawn as on the app's page.

Each function returns the bytes of a picture; what is random comes from the generator that it is given.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from lab.for_app.scenes import encode, enlarge

PAGE = 280
BRUSH = 22  # the page's pen, in pixels
FINER = 3  # drawn at three times the size, then averaged, so that edges are smooth

# Letters as strokes, in a box from 0 to 1. Those that can be read as a digit are left out: B D G I J L O Q S Z.
Points = Sequence[tuple[float, float]] | np.ndarray
STROKES: dict[str, list[Points]] = {
    "A": [[(0, 1), (0.5, 0), (1, 1)], [(0.2, 0.6), (0.8, 0.6)]],
    "E": [[(1, 0), (0, 0), (0, 1), (1, 1)], [(0, 0.5), (0.8, 0.5)]],
    "F": [[(1, 0), (0, 0), (0, 1)], [(0, 0.5), (0.8, 0.5)]],
    "H": [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 0.5), (1, 0.5)]],
    "K": [[(0, 0), (0, 1)], [(1, 0), (0, 0.55), (1, 1)]],
    "M": [[(0, 1), (0, 0), (0.5, 0.6), (1, 0), (1, 1)]],
    "N": [[(0, 1), (0, 0), (1, 1), (1, 0)]],
    "P": [[(0, 1), (0, 0), (0.7, 0), (1, 0.15), (1, 0.4), (0.7, 0.55), (0, 0.55)]],
    "R": [[(0, 1), (0, 0), (0.7, 0), (1, 0.15), (1, 0.35), (0.7, 0.5), (0, 0.5), (1, 1)]],
    "T": [[(0, 0), (1, 0)], [(0.5, 0), (0.5, 1)]],
    "U": [[(0, 0), (0, 0.7), (0.25, 1), (0.75, 1), (1, 0.7), (1, 0)]],
    "V": [[(0, 0), (0.5, 1), (1, 0)]],
    "W": [[(0, 0), (0.25, 1), (0.5, 0.3), (0.75, 1), (1, 0)]],
    "X": [[(0, 0), (1, 1)], [(1, 0), (0, 1)]],
    "Y": [[(0, 0), (0.5, 0.5), (1, 0)], [(0.5, 0.5), (0.5, 1)]],
    "h": [[(0, 0), (0, 1)], [(0, 0.65), (0.3, 0.45), (0.6, 0.5), (0.75, 0.7), (0.75, 1)]],
    "k": [[(0, 0), (0, 1)], [(0.7, 0.4), (0, 0.7), (0.7, 1)]],
    "m": [
        [(0, 0.3), (0, 1)],
        [(0, 0.5), (0.25, 0.3), (0.5, 0.5), (0.5, 1)],
        [(0.5, 0.5), (0.75, 0.3), (1, 0.5), (1, 1)],
    ],
    "n": [[(0, 0.2), (0, 1)], [(0, 0.5), (0.4, 0.2), (0.8, 0.4), (0.8, 1)]],
    "r": [[(0, 0.2), (0, 1)], [(0, 0.6), (0.3, 0.3), (0.7, 0.2)]],
    "t": [[(0.5, 0), (0.5, 0.85), (0.7, 1), (1, 0.9)], [(0.1, 0.3), (0.95, 0.3)]],
    "w": [[(0, 0.3), (0.25, 1), (0.5, 0.5), (0.75, 1), (1, 0.3)]],
}
PRINTED = "AEFHKMNPRTUVWXYadefhkmnprtuvwxy"


def halves(letters: Iterable[str]) -> tuple[list[str], list[str]]:
    """Every other letter of the alphabet, and the rest: a network that learned the ones is tested with the others."""
    names = sorted({letter.upper() for letter in letters})
    return tuple([one for one in letters if one.upper() in half] for half in (names[::2], names[1::2]))  # type: ignore[return-value]


def _draw(strokes: Sequence[np.ndarray], brush: float) -> bytes:
    """Draw lines through points, in the page's pixels, black on white, with round ends."""
    page = Image.new("L", (FINER * PAGE, FINER * PAGE), 255)
    pen, width = ImageDraw.Draw(page), FINER * brush
    for stroke in strokes:
        points = [tuple(point) for point in FINER * stroke]
        if len(points) > 1:
            pen.line(points, fill=0, width=round(width), joint="curve")
        for x, y in points:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=0)
    return encode(np.asarray(page.reduce(FINER)))


def _by_hand(strokes: Sequence[Points], rng: np.random.Generator, shaky: float = 0.03) -> list[np.ndarray]:
    """Place strokes from a box of 0 to 1 on the page: leaning, stretched, and not quite where they should be."""
    height = rng.uniform(110, 210)
    width = height * rng.uniform(0.55, 0.9)
    turn, lean = rng.normal(0, 0.08), rng.normal(0, 0.12)
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) @ [[1, -lean], [0, 1]]
    center = np.array([140, 140]) + rng.uniform(-25, 26, 2)
    placed = []
    for stroke in strokes:
        points = (np.array(stroke) - 0.5 + rng.normal(0, shaky, (len(stroke), 2))) * [width, height]
        placed.append(points @ matrix.T + center)
    return placed


def drawn_letter(letters: Sequence[str], rng: np.random.Generator) -> bytes:
    """One of the letters in STROKES, drawn with the page's pen."""
    return _draw(_by_hand(STROKES[str(rng.choice(letters))], rng), BRUSH * rng.uniform(0.7, 1.1))


def face(rng: np.random.Generator) -> bytes:
    """A smiley: a circle, two eyes, a mouth."""
    angles = np.linspace(0, 2 * math.pi, 40) + rng.uniform(0, 6)
    circle = np.stack([0.5 + 0.5 * np.cos(angles), 0.5 + 0.5 * np.sin(angles)], axis=1)
    across, low, bend = np.linspace(-1, 1, 9), rng.uniform(0.6, 0.68), rng.uniform(-0.15, 0.25)
    mouth = np.stack([0.5 + 0.25 * across, low + bend * (1 - across**2)], axis=1)
    eyes = [[(x, 0.33), (x, 0.33 + rng.choice([0.0, 0.1]))] for x in (0.33, 0.67)]
    return _draw(_by_hand([circle, *eyes, mouth], rng, shaky=0.01), BRUSH * rng.uniform(0.4, 0.9))


def doodle(rng: np.random.Generator) -> bytes:
    """One to three lines or curves anywhere."""
    strokes: list[Points] = []
    for _ in range(int(rng.integers(1, 4))):
        points = rng.uniform(0, 1, (int(rng.integers(2, 7)), 2))
        strokes.append(_curve(points) if rng.random() < 0.6 else points)
    return _draw(_by_hand(strokes, rng), BRUSH * rng.uniform(0.6, 1.2))


def _curve(points: np.ndarray) -> np.ndarray:
    """Bezier's curve from the first to the last point."""
    last = len(points) - 1
    t = np.linspace(0, 1, 4 * len(points))[:, None]
    return sum(math.comb(last, i) * t**i * (1 - t) ** (last - i) * point for i, point in enumerate(points))


def mirrored(pixels: np.ndarray) -> bytes:
    """An MNIST digit, uint8 of shape (28, 28), with left and right exchanged."""
    return encode(255 * (1 - enlarge(np.ascontiguousarray(pixels[:, ::-1]), PAGE // 2)))


def tap(rng: np.random.Generator) -> bytes:
    """One touch of the pen, or one that slipped a little."""
    place = rng.uniform(30, 250, 2)
    slip = rng.normal(0, 3, 2) * (rng.random() < 0.5)
    return _draw([np.array([place, place + slip])], BRUSH * rng.uniform(0.7, 1.3))


def two_digits(left: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> bytes:
    """Two MNIST digits side by side, such as 42 or 10."""
    height = int(rng.uniform(90, 180))
    page = np.zeros((PAGE, 2 * PAGE), dtype=np.float32)
    start = 20
    for pixels in (left, right):
        columns = np.flatnonzero(pixels.any(axis=0))
        narrow = Image.fromarray(np.ascontiguousarray(pixels[:, columns[0] : columns[-1] + 1]))
        tall = int(height * rng.uniform(0.9, 1.1))
        wide = max(2, round(tall * narrow.width / narrow.height))
        top = 40 + int(rng.integers(-8, 9))
        part = page[top : top + tall, start : start + wide]
        part += np.asarray(narrow.resize((wide, tall), Image.Resampling.BICUBIC), dtype=np.float32)
        start += wide + int(height * rng.uniform(0.02, 0.25))
    return encode(255 - page[:, : max(PAGE, start)])


def fonts() -> list[str]:
    """The fonts that are installed or come with matplotlib and have ten different digits, one file per name."""
    folders = [None, str(Path(matplotlib.get_data_path()) / "fonts/ttf")]
    paths = {Path(path).name: path for folder in folders for path in sorted(font_manager.findSystemFonts(folder))}
    return [paths[name] for name in sorted(paths) if _has_digits(paths[name])]


def _has_digits(path: str) -> bool:
    """Symbol fonts have other signs in their place."""
    if Path(path).stem.startswith(("cmex", "cmsy", "STIXSiz", "STIXNonUni")):
        return False
    font = ImageFont.truetype(path, 40)
    masks = [font.getmask(digit) for digit in "0123456789"]
    return len({(mask.size, bytes(mask)) for mask in masks}) == len(masks)


STYLES = ("plain", "slanted", "bold", "turned")


def printed(character: str, font: str, style: str, rng: np.random.Generator) -> bytes:
    """A printed character, dark on light or light on dark."""
    size = int(rng.integers(60, 200))
    page = Image.new("L", (PAGE, PAGE))
    place = (140 + int(rng.integers(-20, 21)), 140 + int(rng.integers(-20, 21)))
    bold = size // 30 if style == "bold" else 0
    ImageDraw.Draw(page).text(place, character, 255, ImageFont.truetype(font, size), anchor="mm", stroke_width=bold)
    if style == "slanted":
        lean = rng.uniform(0.1, 0.3)
        page = page.transform(
            page.size, Image.Transform.AFFINE, (1, lean, -140 * lean, 0, 1, 0), Image.Resampling.BICUBIC
        )
    if style == "turned":
        page = page.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC)
    ink = np.asarray(page, dtype=np.float32)
    return encode(ink if rng.random() < 0.3 else 255 - ink)


def printed_letter(letters: Sequence[str], fonts: Sequence[str], rng: np.random.Generator) -> bytes:
    """One of the letters, printed in one of the fonts."""
    return printed(str(rng.choice(letters)), str(rng.choice(fonts)), str(rng.choice(STYLES)), rng)
