"""Pages with a digit, as files."""

import io

import numpy as np
from PIL import Image


def encode(picture, format="PNG", **options):
    """Encode a picture or an array of pixels as the bytes of a file."""
    file = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(file, format, **options)
    return file.getvalue()


def redraw(pixels, *, side=140, height=280, width=280, top=70, left=70, paper=255, ink=0):
    """Paste an MNIST digit, `side` pixels large, onto a page; return a grayscale picture."""
    large = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    page = np.full((height, width), paper, dtype=np.float32)
    page[top : top + side, left : left + side] += (ink - paper) * large
    return Image.fromarray(page.round().clip(0, 255).astype(np.uint8))
