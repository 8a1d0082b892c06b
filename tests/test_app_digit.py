"""From a picture to an image like MNIST's, and where the app doubts its answer."""

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pages import encode, redraw
from PIL import Image
from servers import REPOSITORY

from app import digit
from app.doubt import SURE, Doubt
from app.network import Network
from app.runtime import softmax
from lab.for_app import no_digits
from lab.for_app.calibration import calibration_error, fit_temperature
from lab.for_app.drawings import groups, measure_ways
from lab.for_app.scenes import SCENES

STEP3 = REPOSITORY / "app" / "step3.onnx"


@pytest.fixture(scope="module")
def network():
    return Network(STEP3)


def share_read(network, pictures, labels):
    """The share of pictures that are read right; one without a digit is not."""
    right = 0
    for body, label in zip(pictures, labels):
        try:
            right += network.predict(digit.prepare(body)).digit == label
        except digit.NoDigit:
            continue
    return right / len(labels)


# ---------------------------------------------------------------------------------------------------------------------
# From a picture to 28 x 28
# ---------------------------------------------------------------------------------------------------------------------


def test_mnist_images_hardly_change(sample):
    """They are scaled and centered already."""
    images = sample[1].images[:500].numpy()
    prepared = np.stack([digit.prepare(encode(image)) for image in images])
    assert (prepared == images).all(axis=(1, 2)).mean() > 0.65
    # on a scale of 255; the images that change have a faint edge, or no pixel of 255
    assert np.abs(prepared.astype(float) - images).mean() < 0.2


@pytest.mark.parametrize(
    ("mode", "format"),
    [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"),
     ("L", "JPEG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("P", "GIF"), ("RGB", "WEBP"), ("RGBA", "WEBP")],
)  # fmt: skip
@pytest.mark.parametrize("ink", [0, 255])
def test_any_mode_of_picture_is_read(sample, network, mode, format, ink):
    page = redraw(sample[1].images[7].numpy(), paper=255 - ink, ink=ink)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(page).astype(np.uint16) * 257)
    else:
        picture = page.convert("RGB").convert(mode) if mode == "CMYK" else page.convert(mode)
    assert network.predict(digit.prepare(encode(picture, format))).digit == 7


@pytest.mark.parametrize("strokes", [0, 255], ids=["dark", "light"])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_pixels_are_paper(sample, network, mode, strokes):
    """Strokes of one color on a transparent background, like an exported canvas."""
    alpha = redraw(sample[1].images[7].numpy(), paper=0, ink=255)
    picture = Image.new("LA" if mode == "LA" else "RGBA", alpha.size, (strokes, 0) if mode == "LA" else (strokes,) * 3)
    picture.putalpha(alpha)
    if mode == "P":
        picture = picture.quantize(16)
    opaque = digit.prepare(encode(redraw(sample[1].images[7].numpy()))).astype(float)
    seen = digit.prepare(encode(picture))
    assert network.predict(seen).digit == 7
    assert mode == "P" or np.abs(seen - opaque).mean() < 0.5  # a palette of 16 shades changes the edges


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_exif_orientation_is_applied(sample, turn):
    """All eight values of the orientation tag."""
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    page = redraw(sample[1].images[7].numpy(), height=300, top=20)
    stored = page.transpose(undo[turn]) if turn in undo else page
    exif = Image.Exif()
    exif[0x0112] = turn
    expected = digit.prepare(encode(page)).astype(float)
    assert np.abs(digit.prepare(encode(stored, exif=exif)) - expected).mean() < 0.5


@pytest.mark.parametrize("lighting", ["from the left", "from a corner", "vignette"])
def test_unevenly_lit_paper_is_paper(sample, network, lighting):
    """A noisy photo whose brightness falls by half: at most one digit in fifty is lost."""
    y, x = np.mgrid[-1:1:280j, -1:1:280j]
    light = {
        "from the left": 0.75 - 0.25 * x,
        "from a corner": 0.75 - 0.125 * (x + y),
        "vignette": 1 - 0.25 * (x**2 + y**2),
    }
    rng = np.random.default_rng(0)
    right = 0
    for image, label in zip(sample[1].images[:100].numpy(), sample[1].labels.tolist()):
        page = np.asarray(redraw(image, paper=230, ink=60)) * light[lighting] + rng.normal(0, 3, (280, 280))
        photo = encode(page.clip(0, 255).astype(np.uint8), "JPEG", quality=85)
        right += network.predict(digit.prepare(photo)).digit == label
    assert right >= 97


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    index=st.integers(0, 999),
    side=st.integers(40, 500),
    above=st.integers(0, 200),
    left=st.integers(0, 200),
    below=st.integers(0, 200),
    right=st.integers(0, 200),
    levels=st.sampled_from([(255, 0), (0, 255), (200, 80), (90, 180), (128, 230)]),
)
def test_padding_polarity_and_scale_do_not_change_the_prediction(
    sample, network, index, side, above, left, below, right, levels
):
    """Unless the network is unsure of the plain digit."""
    pixels = sample[1].images[index].numpy()
    page = {"height": above + side + below, "width": left + side + right, "top": above, "left": left}
    said = network.predict(digit.prepare(encode(redraw(pixels, side=side, **page, paper=levels[0], ink=levels[1]))))
    plain = network.predict(digit.prepare(encode(redraw(pixels))))
    assert said.digit == plain.digit or plain.confidence < 0.9


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.sampled_from(["L", "1", "RGB", "RGBA", "LA"]), st.integers(0, 2**32 - 1)
)
def test_any_picture_gives_28_by_28_or_no_digit(height, width, mode, seed):
    """Noise of any shape, down to a single pixel."""
    rng = np.random.default_rng(seed)
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (height, width, bands), dtype=np.uint8)
    picture = (
        Image.merge(mode, [Image.fromarray(pixels[..., i]) for i in range(bands)])
        if bands > 1
        else Image.fromarray(pixels[..., 0]).convert(mode)
    )
    try:
        image = digit.prepare(encode(picture))
    except digit.NoDigit:
        return
    assert image.shape == (28, 28) and image.dtype == np.uint8 and image.any()


@pytest.mark.parametrize("color", [0, 128, 255, (0, 0, 0, 0)])
def test_a_blank_picture_has_no_digit(color):
    picture = Image.new("RGBA" if isinstance(color, tuple) else "L", (280, 280), color)
    with pytest.raises(digit.NoDigit, match="draw something first"):
        digit.prepare(encode(picture))


def test_the_digit_is_found_on_a_sheet_on_a_dark_table(sample, network):
    """19 of 20 are correct: 285 of 300 of MNIST's test images, 287 of 300 of the sample's, each with its own noise."""
    right = 0
    for index, (image, label) in enumerate(zip(sample[1].images[:100].numpy(), sample[1].labels.tolist())):
        table = np.full((400, 500), 60) + np.random.default_rng(index).normal(0, 4, (400, 500))
        table[40:370, 50:460] += 150
        page = redraw(image, side=200, height=330, width=410, top=60, left=100, paper=255, ink=110)
        table[40:370, 50:460] -= 255 - np.asarray(page)
        photo = encode(table.clip(0, 255).astype(np.uint8), "JPEG", quality=85)
        right += network.predict(digit.prepare(photo)).digit == label
    assert right >= 90


def test_the_first_of_several_frames_is_read(sample, network):
    frames = [redraw(sample[1].images[index].numpy()) for index in (7, 2, 1)]
    content = encode(frames[0], save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert network.predict(digit.prepare(content)).digit == 7


@pytest.mark.parametrize("grain", [0, 12])
def test_a_few_specks_are_not_a_digit(grain):
    """They are far apart: scaled to 28 x 28, nothing is left of them."""
    page = np.full((1_500, 1_500), 200) + np.random.default_rng(0).normal(0, grain, (1_500, 1_500))
    page[10, 10] = page[1_490, 1_490] = page[700, 60] = 0
    with pytest.raises(digit.NoDigit):
        digit.prepare(encode(page.clip(0, 255).astype(np.uint8)))


@pytest.mark.parametrize(("darkest", "lightest"), [(0, 4_095), (28_000, 30_000), (40_000, 65_535)])
def test_16_bit_pictures_may_use_part_of_their_range(sample, network, darkest, lightest):
    page = np.asarray(redraw(sample[1].images[7].numpy()), dtype=np.float64) / 255
    wide = (darkest + (lightest - darkest) * page).round().astype(np.uint16)
    assert network.predict(digit.prepare(encode(Image.fromarray(wide)))).digit == 7


def test_a_photo_of_12_megapixels_is_read(sample, network):
    page = redraw(sample[1].images[7].numpy(), side=2_000, height=3_000, width=4_000, top=500, left=900)
    assert network.predict(digit.prepare(encode(page, "JPEG"))).digit == 7


@pytest.mark.parametrize(("width", "height"), [(16_000_000, 1), (1, 16_000_000), (10_001, 10), (4_001, 4_000)])
def test_a_large_picture_is_refused_before_it_is_decoded(width, height):
    with pytest.raises(digit.TooLarge) as refused:
        digit.prepare(encode(Image.new("1", (width, height))))
    expected = "expected at most 10,000 on each side and 16 million in total"
    assert str(refused.value) == f"the picture has {width:,} by {height:,} pixels, {expected}"


@pytest.mark.parametrize("body", [b"", b"%PDF-1.7", b"RIFF\0\0\0\0AVI LIST", b"GIF88a"])
def test_what_is_no_picture_is_named_so(body):
    with pytest.raises(digit.NotAPicture, match="the file is not a PNG, JPEG, GIF or WebP, expected one of them"):
        digit.prepare(body)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_half_a_picture_cannot_be_decoded(sample, format):
    whole = encode(redraw(sample[1].images[7].numpy()), format)
    with pytest.raises(digit.Unreadable, match="expected a PNG, JPEG, GIF or WebP that is complete"):
        digit.prepare(whole[: len(whole) // 2])


def test_redrawn_digits_are_predicted_as_well_as_the_originals(sample, network, monkeypatch):
    """300 digits redrawn at random; `python -m lab drawings` does this with MNIST's test images."""
    monkeypatch.setattr("lab.for_app.drawings.DIGITS", 300)
    accuracy = measure_ways(network, sample[1])
    assert accuracy["prepared"] >= accuracy["plain"] - 1 > 98
    assert accuracy["prepared"] > accuracy["cropped"] + 10 > accuracy["resized"]


@pytest.mark.parametrize("name", SCENES)
def test_at_most_3_of_60_digits_are_lost_in_any_scene(sample, network, name):
    rng = np.random.default_rng(0)
    pictures = [SCENES[name](image, rng) for image in sample[1].images[:60].numpy()]
    assert share_read(network, pictures, sample[1].labels[:60].tolist()) >= 0.95


def test_a_sheet_that_fills_the_picture_to_a_dark_edge_is_paper(sample, network):
    pages = []
    for image in sample[1].images[:60].numpy():
        page = np.asarray(redraw(image)).copy()
        page[:9] = page[-9:] = page[:, :9] = page[:, -9:] = 0
        pages.append(encode(page))
    assert share_read(network, pages, sample[1].labels[:60].tolist()) >= 0.95


def test_ruled_lines_as_dark_as_the_digit_are_taken_away(sample, network):
    pages = []
    for image in sample[1].images[:60].numpy():
        page = np.asarray(redraw(image)).copy()
        page[20::40] = page[21::40] = 0
        pages.append(encode(page))
    assert share_read(network, pages, sample[1].labels[:60].tolist()) >= 0.9


# ---------------------------------------------------------------------------------------------------------------------
# Doubt
# ---------------------------------------------------------------------------------------------------------------------


def test_at_most_1_of_100_digits_is_doubted(sample, network):
    """1,000 digits, of which the small network has seen most."""
    assert sum(network.predict(image).doubt != "" for image in sample[1].images.numpy()) <= 10


@pytest.fixture(scope="module")
def no_digit(sample):
    """60 pictures of each kind."""
    made = groups(sample[1], pictures=1, no_digit_pictures=60)
    return {group.name: group.bodies for group in made if group.labels is None}


@pytest.mark.parametrize("kind", ["42", "10", "any two digits", "a letter, drawn", "a smiley", "a single tap"])
def test_most_pictures_that_show_no_single_digit_are_doubted(network, no_digit, kind):
    said = [network.predict(digit.prepare(body)).doubt for body in no_digit[kind]]
    assert sum(doubt != "" for doubt in said) >= 50
    several = kind in ("42", "10", "any two digits")
    assert sum(doubt == "more than one digit" for doubt in said) >= 45 if several else said.count("not a digit") >= 45


def test_a_confidence_near_a_guess_is_not_sure(sample):
    image = sample[1].images[7].numpy()
    doubt = Doubt()
    assert doubt.kinds(image[None])[0][0] > doubt.least
    assert doubt.about(image, SURE) == "" and doubt.about(image, SURE - 0.01) == "not sure"


def test_a_file_that_is_no_such_network_is_refused_with_one_sentence(tmp_path):
    for path in (tmp_path / "none.onnx", STEP3):
        with pytest.raises(ValueError, match="is not a network written by `python -m lab doubt`"):
            Doubt(path)


def test_letters_are_halved_without_a_letter_in_both():
    one, other = no_digits.halves(no_digits.STROKES)
    assert sorted(one + other) == sorted(no_digits.STROKES)
    assert not {letter.upper() for letter in one} & {letter.upper() for letter in other}


def test_the_temperature_that_overstated_the_logits_is_found(network):
    """Labels are drawn from what the logits say; then the logits are tripled."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4_000, 10))
    labels = np.array([rng.choice(10, p=chances) for chances in softmax(logits)])
    temperature = fit_temperature(3 * logits, labels)
    assert temperature == pytest.approx(3, rel=0.1)
    overstated, calibrated = (calibration_error(softmax(3 * logits, by), labels) for by in (1, temperature))
    assert overstated > 10 > 3 > calibrated
    assert float(network.about["temperature"]) > 0


def test_the_confidence_is_that_of_the_logits_divided_by_the_temperature(sample, network):
    image = sample[1].images[7].numpy()
    by_hand = softmax(network.logits(image[None]), network.temperature)[0]
    assert network.predict(image).probabilities == pytest.approx(by_hand.tolist())
