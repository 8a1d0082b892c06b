"""Separate ink from paper, and the digit from what else is there: lines, shadows, a printed box, specks, a desk.

Drawings and scans have flat paper, of one gray level. In a photo, the paper's brightness varies from place to place, and
is estimated as what remains once everything dark and narrow is filled. The digit is then searched for among the
connected components of the ink, at a reduced size.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

SEARCH_SIDE = 160  # the digit is searched for in a picture of at most this side
LEAST_CONTRAST = 0.1  # between ink and paper; black and white differ by 1
FLAT = 0.2  # least share of the frame that has one gray level, where the paper is flat
GRAIN = 12  # a digit's contrast is at least this many times the typical deviation of the paper
THRESHOLDS = (0.2, 0.35, 0.5, 0.65)  # of full ink: what is fainter than the digit drops out at one of them
EDGE = 0.06  # of the digit's longer side: how far the soft edge of a stroke reaches
BORDER = 0.03  # of the picture's sides: in a photo, what comes as close to the border reaches it
HOLE = 0.1  # added to the unevenness around what lies within the digit of the other polarity: it may be a hole
SOFT = 0.75  # of the digit's sides: at least this remains without its soft edge

# Which components are part of the digit beside the main one
MOST = 60  # components are looked at, those with the most ink
LEAST_SIDE = 4  # of the main one, in pixels of the search
LEAST_STRENGTH = 0.6  # average ink, relative to the main one
LEAST_SHARE = 0.1  # total ink, relative to the main one
NEAR = 0.15  # of the digit's longer side: a component that is no farther needs
LEAST_NEAR = 0.01  # only this share of the ink

LINE = 0.4  # of the picture's side: least length of a ruled line
THICK = 0.04  # of the picture's shorter side: no ruled line is that thick
EVERY_NEIGHBOR = np.ones((3, 3), dtype=bool)

Box = tuple[slice, slice]  # rows and columns


class NoDigit(ValueError):
    """The picture shows no digit."""

    def __init__(self) -> None:
        super().__init__("draw something first: there is no digit in the picture")


class Found(NamedTuple):
    """Where the digit is, in pixels of the search."""

    box: Box
    strokes: np.ndarray  # bool, of the search's shape
    others: np.ndarray  # bool: ink that is not the digit's
    alone: bool  # whether the digit is all that stands out from the paper
    inside: bool  # whether it keeps clear of the picture's border


def find_ink(gray: np.ndarray) -> np.ndarray:
    """Return the digit's ink from 0 (paper) to 255, cut to about its box: uint8 of shape (height, width).

    `gray` is uint8 of shape (height, width). Raises NoDigit if nothing stands out from the paper.
    """
    level = flat_paper(gray)
    return _on_uneven_paper(gray) if level is None else _on_flat_paper(gray, level)


# ---------------------------------------------------------------------------------------------------------------------
# Flat paper: drawings and scans
# ---------------------------------------------------------------------------------------------------------------------


def flat_paper(gray: np.ndarray) -> int | None:
    """Return the gray level of the paper, taken from the picture's frame; None if that has grain, as in a photo."""
    frame = _frame(gray)
    count = np.bincount(frame, minlength=256)
    three = count.copy()  # a level and its neighbors
    three[1:] += count[:-1]
    three[:-1] += count[1:]
    level = int(three.argmax())
    if three[level] < max(FLAT * len(frame), 0.9 * count[max(0, level - 5) : level + 6].sum()):
        return None
    first = max(0, level - 1)
    return first + int(count[first : level + 2].argmax())


def _frame(gray: np.ndarray) -> np.ndarray:
    """The pixels within 6 % of the border."""
    height, width = gray.shape
    y, x = 1 + height // 16, 1 + width // 16
    return np.concatenate([gray[:y].ravel(), gray[-y:].ravel(), gray[y:-y, :x].ravel(), gray[y:-y, -x:].ravel()])


def _on_flat_paper(gray: np.ndarray, level: int) -> np.ndarray:
    small = _reduce(gray)
    ink = _Ink(gray, level)
    if found := _single(ink.beyond(small, THRESHOLDS[0])):
        return ink.of(_cut(gray, found))  # most drawings: nothing else needs to be looked at
    if ink.beyond(small, 0.5).mean() > 0.5 and not ink.beyond(_border(small), LEAST_CONTRAST).any():
        sheet = gray[ink.beyond(gray, 0.5)]  # what lies around it is not the paper
        ink = _Ink(gray, int(np.bincount(sheet).argmax()))
    found = _search(ink.of(small), strict=False)
    return ink.of(_cut(gray, found)) if found.alone else _strokes_of(ink.of(gray), found, full=100)


class _Ink:
    """Turns gray levels into ink: dark on light or light on dark, whichever differs more from the paper."""

    def __init__(self, gray: np.ndarray, level: int) -> None:
        dark, light = level - int(gray.min()), int(gray.max()) - level
        self._level, self._is_dark, self._full = level, dark > light, max(dark, light)
        if self._full < 255 * LEAST_CONTRAST:
            raise NoDigit
        shades = np.arange(256, dtype=np.float32)
        ink = (level - shades if dark > light else shades - level) * (255 / self._full)
        self._table = ink.round().clip(0, 255).astype(np.uint8)

    def of(self, gray: np.ndarray) -> np.ndarray:
        """Ink from 0 to 255, uint8, of gray levels from 0 to 255."""
        return self._table.take(gray)

    def beyond(self, gray: np.ndarray, threshold: float) -> np.ndarray:
        """Where there is more than this share of full ink."""
        apart = threshold * self._full
        return gray < self._level - apart if self._is_dark else gray > self._level + apart


def _single(solid: np.ndarray) -> Found | None:
    """The digit, if it is a single component that keeps clear of the border and is no sheet; else None."""
    bounds = Image.fromarray(solid.view(np.uint8)).getbbox()
    if not bounds:
        return None
    left, top, right, bottom = bounds
    box = (slice(top, bottom), slice(left, right))
    if max(_lengths(box)) < LEAST_SIDE or _touched(box, solid.shape, 0) or np.count_nonzero(solid) > 0.5 * solid.size:
        return None
    if ndimage.label(solid[box], EVERY_NEIGHBOR)[1] != 1:
        return None
    return Found(box, solid, np.zeros_like(solid), alone=True, inside=True)


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


# ---------------------------------------------------------------------------------------------------------------------
# Uneven paper: photos
# ---------------------------------------------------------------------------------------------------------------------


def _on_uneven_paper(gray: np.ndarray) -> np.ndarray:
    """Try dark and light ink, and take the digit whose surroundings are the most even: it is on paper."""
    values = gray.astype(np.float32) / 255
    small = _reduce(values)
    tried = []
    for darker in (1, -1):  # -1: light ink is dark in the negative
        paper = _fill(darker * small)
        found = _search_photo(_contrast(paper, darker * small))
        if found:
            tried.append((_unevenness(small, found), darker, paper, found))
    if not tried:
        raise NoDigit
    if len(tried) == 2:
        boxes = [one[-1].box for one in tried]
        within = [_within(boxes[0], boxes[1]), _within(boxes[1], boxes[0])]
        tried = [(one[0] + HOLE * hole, *one[1:]) for one, hole in zip(tried, within)]
    _, darker, paper, found = min(tried, key=lambda one: one[0])
    large = np.asarray(Image.fromarray(paper).resize(gray.shape[::-1], Image.Resampling.BILINEAR))
    return _strokes_of(_contrast(large, darker * values), found, full=90)


def _fill(values: np.ndarray) -> np.ndarray:
    """The paper's brightness: whatever is darker and narrower than a quarter of the picture is filled.

    Beyond the border all is dark: what is dark along the border, such as a desk, is no ink.
    """
    window = max(3, min(values.shape) // 4)
    padded = np.pad(values, window, constant_values=values.min())
    return ndimage.grey_closing(padded, window)[window:-window, window:-window]


def _contrast(paper: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How much darker than the paper; in a shadow, where the paper is down to half its brightness, as in full light."""
    contrast = paper - values
    return contrast / np.maximum(paper, 0.5 * paper.max()) if paper.max() > 0 else contrast


def _search_photo(contrast: np.ndarray) -> Found | None:
    blank = np.median(contrast)
    full = contrast.max() - blank
    if full < max(LEAST_CONTRAST, GRAIN * np.median(np.abs(contrast - blank))):
        return None
    try:
        return _search(((contrast - blank) / full).clip(0, 1), strict=True)
    except NoDigit:
        return None


def _unevenness(gray: np.ndarray, found: Found) -> float:
    """How much the surroundings of the strokes vary, relative to how far they differ from the strokes."""
    longer = max(_lengths(found.box))
    near = 1 + round(EDGE * longer)
    far = near + 1 + round(0.15 * longer)
    window = tuple(slice(max(0, side.start - far), side.stop + far) for side in found.box)
    strokes, values = found.strokes[window], gray[window]
    around = values[ndimage.maximum_filter(strokes, 2 * far + 1) & ~ndimage.maximum_filter(strokes, 2 * near + 1)]
    if not len(around):
        return math.inf
    return float(around.std() / max(1e-3, abs(np.median(around) - np.median(values[strokes]))))


# ---------------------------------------------------------------------------------------------------------------------
# The digit among other things
# ---------------------------------------------------------------------------------------------------------------------


def _reduce(values: np.ndarray) -> np.ndarray:
    factor = _factor(values)
    return np.asarray(Image.fromarray(values).reduce(factor)) if factor > 1 else values


def _factor(values: np.ndarray) -> int:
    return math.ceil(max(values.shape) / SEARCH_SIDE)


def _search(ink: np.ndarray, strict: bool) -> Found:
    """Find the digit at the lowest threshold at which it keeps clear of the border.

    If it reaches the border at all of them, look again without straight lines. If that does not help either, it was cut
    off: take it as the lowest threshold shows it. `strict`: what reaches the border is hardly ever part of the digit.
    Raises NoDigit if no component is large enough.
    """
    full = ink.max()
    none = np.zeros_like(ink, dtype=bool)
    at_lowest = None
    for threshold in THRESHOLDS:
        found = _choose(ink, ink > threshold * full, none, strict)
        at_lowest = at_lowest or found
        if found and at_lowest and found.inside:
            if all(now > SOFT * before for now, before in zip(_lengths(found.box), _lengths(at_lowest.box))):
                return at_lowest  # only its soft edge reaches the border
            return found._replace(alone=False)
    for threshold in THRESHOLDS[1:]:
        solid, lines = _without_lines(ink > threshold * full)
        found = _choose(ink, solid, lines, strict) if lines.any() else None
        if found and found.inside:
            return found
    if not at_lowest:
        raise NoDigit
    return at_lowest


def _without_lines(solid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take away thin straight lines, horizontal and vertical, except where strokes cross them; return both."""
    lines = np.zeros_like(solid)
    thick = round(THICK * min(solid.shape))
    if thick < 3:  # pixels: in a small picture, strokes are as thin as lines
        return solid, lines
    for axis in (0, 1):
        long = _runs(solid, round(LINE * solid.shape[axis]), axis)
        lines |= long & ~_runs(solid, thick, 1 - axis)
    return solid & ~lines, lines


def _runs(solid: np.ndarray, length: int, axis: int) -> np.ndarray:
    """The pixels that lie in a straight run of at least this many pixels."""
    shorter = ndimage.minimum_filter1d(solid, length, axis, mode="constant")
    return ndimage.maximum_filter1d(shorter, length, axis, mode="constant", origin=-1 if length % 2 == 0 else 0)


def _choose(ink: np.ndarray, solid: np.ndarray, lines: np.ndarray, strict: bool) -> Found | None:
    """The digit among the components of `solid`: the one with the most ink, and what belongs to it."""
    labels, count = ndimage.label(solid, EVERY_NEIGHBOR)
    boxes = ndimage.find_objects(labels)
    mass = np.bincount(labels.ravel(), ink.ravel(), count + 1)[1:]
    touched = [_touched(box, ink.shape, BORDER if strict else 0) for box in boxes]
    largest = np.argsort(-mass)[:MOST].tolist()
    order = [i for i in largest if not _is_printed_box(i, largest, boxes, mass, labels)]
    if strict and order:
        inner = [i for i in order if not touched[i] and mass[i] > 0.25 * mass[order[0]]]
        order = inner + [i for i in order if i not in inner]
    main = next((i for i in order if max(_lengths(boxes[i])) >= min(LEAST_SIDE, max(ink.shape) / 7)), None)
    if main is None:
        return None
    box, kept = boxes[main], np.zeros(count + 1, dtype=bool)
    kept[main + 1] = True
    strength = mass / np.bincount(labels.ravel(), minlength=count + 1)[1:]
    for i in order:
        near = _gap(box, boxes[i]) <= NEAR * max(_lengths(box))
        cut_off = touched[i] > (0 if strict else 1) and not touched[main]
        enough = mass[i] >= (LEAST_NEAR if near else LEAST_SHARE) * mass[main]
        if i != main and enough and not cut_off and strength[i] >= LEAST_STRENGTH * strength[main]:
            kept[i + 1] = True
            box = _around(box, boxes[i])
    strokes = kept[labels]
    others = (solid & ~strokes) | lines
    return Found(box, strokes, others, not others.any(), not touched[main])


def _is_printed_box(index: int, others: list[int], boxes: list[Box], mass: np.ndarray, labels: np.ndarray) -> bool:
    """Whether a component surrounds another one and has ink in its four corners."""
    box = boxes[index]
    height, width = _lengths(box)
    for other in others:
        inner = boxes[other]
        large = mass[other] > 0.03 * mass[index] and max(_lengths(inner)) > 0.2 * max(height, width)
        if other != index and large and _within(inner, box):
            part = labels[box] == index + 1
            y, x = max(2, height // 8), max(2, width // 8)
            return all(corner.any() for corner in (part[:y, :x], part[:y, -x:], part[-y:, :x], part[-y:, -x:]))
    return False


def _touched(box: Box, shape: tuple[int, ...], border: float) -> int:
    """How many sides of the picture a box comes as close to as this share of the picture's sides."""
    return sum(
        (side.start <= border * length) + (side.stop >= (1 - border) * length) for side, length in zip(box, shape)
    )


def _lengths(box: Box) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def _within(one: Box, other: Box) -> bool:
    """Whether the first box lies inside the other and touches none of its sides."""
    return all(b.start < a.start and a.stop < b.stop for a, b in zip(one, other))


def _gap(one: Box, other: Box) -> int:
    """Pixels between two boxes; 0 if they overlap."""
    return max(max(a.start - b.stop, b.start - a.stop, 0) for a, b in zip(one, other))


def _around(one: Box, other: Box) -> Box:
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other))
    return rows, columns


def _cut(ink: np.ndarray, found: Found) -> np.ndarray:
    """Cut ink to the digit's box and its soft edge."""
    factor = _factor(ink)
    return ink[tuple(slice(side.start * factor, side.stop * factor) for side in _window(found))]


def _window(found: Found) -> Box:
    edge = _edge(found)
    rows, columns = (slice(max(0, side.start - edge), side.stop + edge) for side in found.box)
    return rows, columns


def _edge(found: Found) -> int:
    return max(1, round(EDGE * max(_lengths(found.box))))


def _strokes_of(ink: np.ndarray, found: Found, full: float) -> np.ndarray:
    """Cut ink to the digit, and keep its strokes alone, with their soft edge.

    They are stretched from what is left of the paper around them to the `full` percentile of their own ink.
    """
    cut, factor, window = _cut(ink, found), _factor(ink), _window(found)
    others = found.others[window]
    strokes = ndimage.maximum_filter(found.strokes[window], 2 * _edge(found) + 1) & ~others
    if factor > 1:
        strokes, others = (
            mask.repeat(factor, 0).repeat(factor, 1)[: cut.shape[0], : cut.shape[1]] for mask in (strokes, others)
        )
    paper = cut[~strokes & ~others]
    lowest = max(0.0, float(np.percentile(paper, 95))) if len(paper) else 0.0
    highest = float(np.percentile(cut[strokes], full))
    if highest <= lowest:
        raise NoDigit
    stretched = (cut - lowest) * (255 / (highest - lowest))
    return np.where(strokes, stretched.round().clip(0, 255), 0).astype(np.uint8)
