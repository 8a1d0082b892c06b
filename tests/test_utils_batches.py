"""Transforms and loader: image by image against torchvision."""

import pytest
import torch
import torch.nn.functional as F
from helpers import some_digits
from torch import Tensor, nn
from torchvision.transforms.v2.functional import InterpolationMode, affine, elastic

import utils
from utils import Digits, Loader, RandomWarpEach, make_transform

pytestmark = pytest.mark.usefixtures("alone")

# ---------------------------------------------------------------------------------------------------------------------
# Transforms
# ---------------------------------------------------------------------------------------------------------------------

SPREAD = torch.linspace(-1, 1, 12)  # one number for each image, both ways and not symmetric about an image
STILL = {
    "angle": 0 * SPREAD,
    "shift_x": 0 * SPREAD,
    "shift_y": 0 * SPREAD,
    "scale": 1 + 0 * SPREAD,
    "shear": 0 * SPREAD,
}
ROTATED, MOVED = {"angle": 40 * SPREAD}, {"shift_x": 0.2 * SPREAD, "shift_y": -0.13 * SPREAD.flip(0)}
SCALED, SHEARED = {"scale": 1 + 0.3 * SPREAD}, {"shear": 25 * SPREAD.roll(3)}


@pytest.mark.parametrize(
    "moves",
    [STILL, ROTATED, MOVED, SCALED, SHEARED, ROTATED | MOVED, ROTATED | SHEARED, ROTATED | MOVED | SCALED | SHEARED],
    ids=["still", "rotated", "shifted", "scaled", "sheared", "rotated and shifted", "rotated and sheared", "together"],
)
def test_each_image_is_moved_as_torchvision_moves_it(moves):
    images = torch.rand(12, 2, 28, 28, generator=torch.Generator().manual_seed(0))
    moves = STILL | moves
    moved = utils.warp_each(images, **moves)
    for i in range(12):
        m = {name: values[i].item() for name, values in moves.items()}
        expected = affine(
            images[i],
            angle=m["angle"],
            translate=[28 * m["shift_x"], 28 * m["shift_y"]],
            scale=m["scale"],
            shear=[m["shear"], 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(moved[i], expected, atol=1e-4, rtol=0)


def test_each_image_is_bent_as_torchvision_bends_it():
    images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    pulls = 0.1 * torch.rand(6, 2, 5, 5, generator=torch.Generator().manual_seed(1)) - 0.05
    still = {name: values[:6] for name, values in (STILL | {"scale": torch.ones(6)}).items()}
    bent = utils.warp_each(images, **still, warp=pulls.flatten(1))
    for i in range(6):
        everywhere = F.interpolate(pulls[i : i + 1], size=28, mode="bilinear", align_corners=True)
        expected = elastic(images[i], 2 * everywhere.permute(0, 2, 3, 1))  # elastic's image is 2 wide
        torch.testing.assert_close(bent[i], expected, atol=1e-4, rtol=0)


def test_a_warp_moves_each_point_within_its_bound_and_each_image_in_its_own_way():
    x, y = spots_after(RandomWarpEach(warp=0.05), 0, 0)
    for moved in (x, y):
        assert moved.unique().numel() == 400
        assert moved.abs().max() < 28 * 0.05 + 0.05
        assert moved.std() > 0.3


def a_spot(x: float, y: float) -> Tensor:
    """An image with a spot so many pixels right of and below its centre."""
    places = torch.arange(28) - 13.5
    return torch.exp(-((places[None, :] - x) ** 2 + (places[:, None] - y) ** 2) / 4)


def spots_after(transform: nn.Module, x: float, y: float) -> tuple[Tensor, Tensor]:
    """Where the spot is in each of 400 transformed images."""
    torch.manual_seed(0)
    images = transform(a_spot(x, y).expand(400, 1, -1, -1)).squeeze(1)
    places, mass = torch.arange(28) - 13.5, images.sum((1, 2))
    return (images.sum(1) * places).sum(1) / mass, (images.sum(2) * places).sum(1) / mass


@pytest.mark.parametrize(
    "bound, start, measure",
    [
        ({"rotation": 30}, (0, -6), lambda x, y: torch.rad2deg(torch.atan2(x, -y)) / 30),
        ({"shift": 0.1}, (0, 0), lambda x, y: x / 2.8),
        ({"shift": 0.1}, (0, 0), lambda x, y: y / 2.8),
        ({"scale": 0.2}, (6, 0), lambda x, y: (x / 6 - 1) / 0.2),
        ({"shear": 20}, (0, -6), lambda x, y: torch.rad2deg(torch.atan2(x, -y)) / 20),
    ],
    ids=["rotation", "shift along x", "shift along y", "scale", "shear"],
)
def test_random_moves_fill_their_bounds_both_ways_and_stay_within(bound, start, measure):
    drawn = measure(*spots_after(RandomWarpEach(**bound), *start))
    assert -1.02 < drawn.min() < -0.97 and 0.97 < drawn.max() < 1.02
    assert drawn.unique().numel() == 400  # one move for each image
    assert abs(drawn.mean()) < 0.15 and 0.5 < drawn.std() < 0.65  # uniform: 1 / sqrt(3) = 0.577


def test_bounds_of_zero_leave_the_images_as_they_are():
    images = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(RandomWarpEach()(images), images, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "bound, sentence",
    [
        ({"rotation": -1}, "rotation is -1, expected a bound of 0 or more"),
        ({"shift": -0.1}, "shift is -0.1, expected a bound of 0 or more"),
        ({"scale": -0.1}, "scale is -0.1, expected a bound from 0 to below 1"),
        ({"scale": 1}, "scale is 1, expected a bound from 0 to below 1"),
        ({"shear": -5}, "shear is -5, expected a bound of 0 or more"),
        ({"warp": -0.1}, "warp is -0.1, expected a bound of 0 or more"),
    ],
)
def test_a_bound_that_means_nothing_is_refused(bound, sentence):
    with pytest.raises(ValueError, match=sentence):
        RandomWarpEach(**bound)


def test_pixels_are_scaled_to_one_and_normalized_by_the_mean_and_deviation_of_mnist():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(4)[: 28 * 28].view(1, 1, 28, 28)
    expected = [(p / 255 - 0.1307) / 0.3081 for p in pixels.flatten().tolist()]
    seen = make_transform()(pixels)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen.flatten(), torch.tensor(expected))


def test_what_comes_from_outside_of_an_augmented_image_is_black():
    white = torch.full((50, 1, 28, 28), 255, dtype=torch.uint8)
    seen = make_transform({"shift": 0.3})(white)
    black = torch.tensor(-0.1307 / 0.3081)
    assert torch.isclose(seen, black).any() and seen.min() > black - 1e-4


@pytest.mark.parametrize("name", utils.AUGMENTATIONS)
def test_every_augmentation_changes_images_and_is_named_in_the_transform(name):
    batch = some_digits(4).images.unsqueeze(1)
    transform = make_transform({name: 0.5})
    assert not torch.allclose(transform(batch), make_transform()(batch), atol=1e-3)
    assert f"{name}=0.5" in str(transform)


def test_an_unknown_augmentation_is_refused_with_the_names_there_are():
    with pytest.raises(
        ValueError, match="unknown transform 'flip', expected one of rotation, shift, scale, shear, warp"
    ):
        make_transform({"flip": 1})


# ---------------------------------------------------------------------------------------------------------------------
# Loader
# ---------------------------------------------------------------------------------------------------------------------


def numbered(count: int) -> Digits:
    """Digits that can be told apart: the first pixel is the image's number."""
    digits = some_digits(count)
    digits.images[:, 0, 0] = torch.arange(count)
    return digits


def order_of(loader: Loader) -> list[int]:
    return [int(pixel) for images, _ in loader for pixel in images[:, 0, 0, 0]]


def as_is(images: Tensor) -> Tensor:
    return images


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_image_comes_once_an_epoch_with_its_own_label(shuffle):
    loader = Loader(numbered(130), 32, as_is, shuffle=shuffle)
    assert sorted(order_of(loader)) == list(range(130))
    assert (order_of(loader) == list(range(130))) == (not shuffle)
    for images, labels in loader:
        assert torch.equal(images[:, 0, 0, 0] % 10, labels)


def test_each_epoch_has_an_order_of_its_own_that_follows_from_the_seed():
    loader = Loader(numbered(130), 32, as_is, shuffle=True)
    orders = []
    for seed in (1, 1, 2):
        utils.seed_everything(seed)
        orders.append([order_of(loader) for _ in range(3)])
    assert orders[0] == orders[1] != orders[2]
    assert len(set(map(tuple, orders[0]))) == 3


@pytest.mark.parametrize(
    "count, batch_size, sizes", [(130, 32, [32, 32, 32, 32, 2]), (64, 32, [32, 32]), (5, 32, [5]), (3, 1, [1, 1, 1])]
)
def test_the_last_batch_holds_what_is_left(count, batch_size, sizes):
    loader = Loader(numbered(count), batch_size, make_transform())
    assert [len(labels) for _, labels in loader] == sizes
    assert len(loader) == len(sizes)


def test_batches_are_float_images_with_a_channel_and_integer_labels():
    images, labels = next(iter(Loader(some_digits(9), 4, make_transform({"rotation": 5}), shuffle=True)))
    assert (images.shape, images.dtype) == ((4, 1, 28, 28), torch.float32)
    assert (labels.shape, labels.dtype) == ((4,), torch.int64)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}, expected at least 1"):
        Loader(some_digits(3), batch_size, as_is)
