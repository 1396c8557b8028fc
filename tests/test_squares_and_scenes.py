"""The two toys whose truth is known: squares and scenes, and the networks trained on them."""

import hashlib
import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils import _scenery, datasets, models

BUILD = Path(__file__).resolve().parents[1] / "data" / "build"


def build_script(name):
    """The build script data/build/name.py as a module."""
    if str(BUILD) not in sys.path:
        sys.path.append(str(BUILD))  # for its `from _common import ...`
    spec = importlib.util.spec_from_file_location(f"build_{name}", BUILD / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accuracy(model, data):
    return np.mean((model.predict(data.images, verbose=0)[:, 0] > 0.5) == data.labels)


# Squares


def test_squares_with_the_same_seed_are_the_same_bits():
    first, again, other = (datasets.make_squares(20, seed=s) for s in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.images, other.images)


def test_squares_masks_are_exactly_the_rectangles():
    images, labels, masks = datasets.make_squares(400, seed=0)
    darker = datasets.make_squares(400, seed=0, grey=0.25)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    assert masks.dtype == bool
    assert (images[masks] == 0.5).all()
    assert (darker.images[masks] == 0.25).all()
    assert np.array_equal(images[~masks], darker.images[~masks])
    assert np.array_equal(masks.any((1, 2)), labels == 1)
    for mask in masks[labels == 1]:
        assert np.array_equal(mask, mask.any(1)[:, None] & mask.any(0)), "not a rectangle"


def test_squares_corners_fall_where_the_document_puts_them():
    # randrange(0, 32) and randrange(32, 64) for img[a:c]: first rows 0..31, last rows 31..62.
    _, labels, masks = datasets.make_squares(2000, seed=1)
    assert 0.45 < labels.mean() < 0.55
    assert np.array_equal(masks[:, 31, 31], labels == 1), "every rectangle covers the middle"
    for axis in (1, 2):
        hit = masks[labels == 1].any(axis)
        first, last = hit.argmax(1), 63 - hit[:, ::-1].argmax(1)
        assert (first.min(), first.max(), last.min(), last.max()) == (0, 31, 31, 62)
        assert abs(first.mean() - 15.5) < 1
        assert abs(last.mean() - 46.5) < 1


def test_squares_keep_the_document_s_scale_bug_on_request():
    images, _labels, masks = datasets.make_squares(50, seed=0, grey=100.0)
    assert (images[masks] == 100).all()
    assert images[~masks].max() <= 1


def test_squares_of_one_call_share_no_background_and_come_from_the_shipped_ones():
    # A number that no turn, flip or exchange of colours changes.
    def identity(images):
        distance = (2 * np.arange(64) - 63) ** 2
        return ((images.astype(np.int64) ** 3).sum(-1) * (distance + distance[:, None])).sum((1, 2))

    shipped = set(identity(datasets.load_arrays("squares_backgrounds.npz")["images"]))
    assert len(shipped) == 200
    images, labels, _ = datasets.make_squares(200, seed=5)
    plain = identity(np.round(images[labels == 0] * 255))
    assert len(plain) > 70
    assert len(set(plain)) == len(plain)
    assert set(plain) <= shipped


def test_squares_are_turned_and_their_colours_exchanged():
    background = np.zeros((1, 64, 64, 3), np.uint8)
    background[0, 0, 10, 1] = 255  # one green pixel near a corner
    images, labels, _ = datasets._draw_squares(background, 2000, np.random.default_rng(0), 0.0)
    places = {tuple(map(int, np.argwhere(i)[0])) for i in images[labels == 0]}
    corners = [(0, 10), (10, 0), (0, 53), (53, 0), (63, 10), (10, 63), (63, 53), (53, 63)]
    assert places == {(*corner, channel) for corner in corners for channel in range(3)}


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "7"])
def test_a_count_that_is_none_is_refused(n):
    with pytest.raises(ValueError, match="n must be a whole number from 1"):
        datasets.make_squares(n, seed=0)
    with pytest.raises(ValueError, match="n must be a whole number from 1"):
        datasets.make_scenes(n, confounded=True, seed=0)


@pytest.mark.parametrize("grey", [np.nan, np.inf])
def test_a_grey_that_is_not_finite_is_refused(grey):
    with pytest.raises(ValueError, match="grey must be finite"):
        datasets.make_squares(1, seed=0, grey=grey)


def test_squares_backgrounds_can_be_rebuilt():
    if importlib.util.find_spec("randimage") is None:
        pytest.skip("randimage, which draws the backgrounds, is not installed")
    shipped = datasets.load_arrays("squares_backgrounds.npz")["images"]
    assert np.array_equal(build_script("squares").backgrounds(3), shipped[:3])


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (models.squares_cnn, 30_753),
        (models.squares_document_cnn, 1_049_537),
        (models.scenes_cnn, 285_857),
    ],
)
def test_networks_have_the_stated_size_and_one_probability(build, parameters):
    model = build()
    assert model.count_params() == parameters
    assert model.output_shape == (None, 1)
    assert model.layers[-1].activation is keras.activations.sigmoid


@pytest.mark.parametrize(
    "seed", [101, *(pytest.param(s, marks=pytest.mark.slow) for s in (102, 103))]
)
def test_trained_squares_network_is_right_on_fresh_images(seed):
    assert accuracy(models.load_trained("squares"), datasets.make_squares(1000, seed=seed)) >= 0.98


@pytest.mark.slow
def test_the_document_s_network_does_better_on_the_document_s_rectangle():
    right = {}
    for grey in (100.0, 0.5):
        squares = datasets.make_squares(180, seed=0, grey=grey)
        keras.utils.set_random_seed(0)
        model = models.squares_document_cnn()
        model.fit(squares.images, squares.labels, batch_size=32, epochs=10, verbose=0)
        right[grey] = accuracy(model, datasets.make_squares(500, seed=1, grey=grey))
    assert right[100.0] > 0.95
    assert 0.6 < right[0.5] < 0.94


# Scenes


@pytest.fixture(scope="module")
def fair():
    return datasets.make_scenes(120, confounded=False, seed=7)


@pytest.fixture(scope="module")
def confounded():
    return datasets.make_scenes(120, confounded=True, seed=7)


def test_scenes_with_the_same_seed_are_the_same_bits(fair):
    again = datasets.make_scenes(120, confounded=False, seed=7)
    assert all(np.array_equal(a, b) for a, b in zip(fair, again, strict=True))
    other = datasets.make_scenes(120, confounded=False, seed=8)
    assert not np.array_equal(fair.images, other.images)


@pytest.mark.parametrize(
    ("confounded", "digest"),
    [
        (True, "cc899c30743e0068f3c65490f4cd8f17fcd8ca745ff67ad35d7510c928c3d776"),
        (False, "fa48582bc53698d2a14e5e867793d62179900c8f4654c0f94c79886f306459a1"),
    ],
)
def test_scenes_are_those_that_were_drawn_before_each_thing_had_a_mask(confounded, digest):
    scenes = datasets.make_scenes(40, confounded=confounded, seed=3)
    drawn = b"".join(array.tobytes() for array in scenes[:5])
    assert hashlib.sha256(drawn).hexdigest() == digest


def test_weather_and_tank_are_identical_or_independent(fair, confounded):
    assert np.array_equal(confounded.cloudy, confounded.labels == 1)
    cases, counts = np.unique(2 * fair.cloudy + fair.labels, return_counts=True)
    assert cases.tolist() == [0, 1, 2, 3]
    assert counts.tolist() == [30, 30, 30, 30]
    assert len(np.unique(np.diff(np.flatnonzero(fair.labels)))) > 2, "the order is not random"


@settings(max_examples=8)
@given(n=st.integers(1, 9), confounded=st.booleans(), seed=st.integers(0, 99))
def test_any_number_of_scenes_is_balanced(n, confounded, seed):
    scenes = datasets.make_scenes(n, confounded=confounded, seed=seed)
    assert all(len(array) == n for array in scenes)
    assert scenes.labels.sum() == n // 2


def test_the_land_does_not_depend_on_the_weather(fair, confounded):
    assert np.array_equal(fair.labels, confounded.labels)
    assert np.array_equal(fair.tank_masks, confounded.tank_masks)
    assert np.array_equal(fair.sky_masks, confounded.sky_masks)
    assert (fair.cloudy != confounded.cloudy).any()
    # The horizon lies in row 29 at most; sky is half a pixel or less above it where not masked.
    assert np.array_equal(fair.images[:, 30:], confounded.images[:, 30:])


def test_scenes_values_types_and_masks(fair):
    images, labels, cloudy, tank_masks, sky_masks, masks = fair
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    assert cloudy.dtype == tank_masks.dtype == sky_masks.dtype == masks.dtype == bool
    assert 0 <= images.min() < 0.1
    assert 0.9 < images.max() <= 1
    assert np.array_equal(tank_masks.any((1, 2)), labels == 1)
    areas = tank_masks[labels == 1].sum((1, 2))
    assert areas.min() > 80, "a tank is hidden"
    assert areas.max() < 300, "a tank spreads"
    assert not (tank_masks & sky_masks).any()
    assert sky_masks[:, 0].all()
    assert not sky_masks[:, 30:].any()
    assert 0.3 < sky_masks.mean() < 0.45


def test_each_thing_has_its_mask_and_no_pixel_is_in_two(fair):
    of = {thing: fair.masks[..., k] for k, thing in enumerate(datasets.THINGS)}
    assert [*of] == ["grass", "sky", "tank", "hills", "trees", "bushes", "rocks"]
    assert np.array_equal(of["sky"], fair.sky_masks)
    assert np.array_equal(of["tank"], fair.tank_masks)
    # A pixel may be two things in exact halves.
    assert (fair.masks.sum(-1) > 1).mean() < 0.01
    assert (fair.masks.sum(-1) == 0).mean() < 0.01
    assert all(of[thing].any((1, 2)).mean() > 0.9 for thing in ("grass", "sky", "hills", "trees"))
    assert all(0.003 < of[thing].mean() < 0.05 for thing in ("tank", "hills", "bushes", "rocks"))


@pytest.mark.parametrize(
    ("thing", "colours", "strokes"),
    [("ROCKS", "STONE", "_draw_rock"), ("BUSHES", "LEAVES", "_draw_bush")],
)
def test_a_thing_s_mask_is_where_its_colours_are(thing, colours, strokes, monkeypatch):
    monkeypatch.setattr(_scenery, colours, np.full((3, 3), (255.0, 0, 255)))
    canvas = np.zeros((256, 256, 4), np.uint8)
    getattr(_scenery, strokes)(canvas, 120, 160, 40, np.random.default_rng(0))
    pink = (canvas[..., 0] > 150) & (canvas[..., 1] == 0)
    assert pink.sum() > 300
    assert np.array_equal(canvas[..., 3] == getattr(_scenery, thing), pink)


def test_the_sky_alone_tells_the_weather(fair):
    blueness = [
        (i[m][:, 2] - i[m][:, 0]).mean() for i, m in zip(fair.images, fair.sky_masks, strict=True)
    ]
    assert np.min(np.array(blueness)[~fair.cloudy]) > 0.2
    assert np.max(np.array(blueness)[fair.cloudy]) < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_the_tank_s_mask_is_every_pixel_of_the_tank_s_colours(seed, monkeypatch):
    pink = (255, 0, 255)
    for colour in ("TRACKS", "WHEELS", "OUTLINE"):
        monkeypatch.setattr(_scenery, colour, pink)
    monkeypatch.setattr(_scenery, "CAMOUFLAGE", np.array([pink] * 3, np.uint8))
    land, sky = np.random.default_rng(seed).spawn(2)
    canvas = _scenery.draw_scene(True, False, land, sky)
    assert np.array_equal((canvas[..., :3] == pink).all(-1), canvas[..., 3] == _scenery.TANK)


def test_the_sky_s_mask_is_where_the_weather_shows():
    sunny, cloudy = (
        _scenery.draw_scene(True, weather, *np.random.default_rng(2).spawn(2))
        for weather in (False, True)
    )
    differs, sky = (sunny != cloudy).any(-1), sunny[..., 3] == _scenery.SKY
    assert not (differs & ~sky).any()
    assert (differs & sky).sum() > 0.99 * sky.sum()


@pytest.mark.parametrize(("fine_pixels", "belongs"), [(7, False), (8, True), (16, True)])
def test_a_pixel_belongs_to_a_mask_from_one_half(fine_pixels, belongs):
    canvas = np.zeros((256, 256, 4), np.uint8)
    block = np.zeros(16, np.uint8)
    block[:fine_pixels] = 1
    canvas[20:24, 40:44, 3] = _scenery.TANK * block.reshape(4, 4)
    canvas[20:24, 80:84, 3] = _scenery.SKY * block.reshape(4, 4)
    canvas[20:24, 40:44, 0] = 160 * block.reshape(4, 4)
    picture, masks = _scenery.shrink(canvas)
    sky, tank = masks[..., _scenery.SKY], masks[..., _scenery.TANK]
    assert np.argwhere(tank).tolist() == ([[5, 10]] if belongs else [])
    assert np.argwhere(sky).tolist() == ([[5, 20]] if belongs else [])
    assert picture[5, 10, 0] * 255 == pytest.approx(10 * fine_pixels, abs=0.5)
    assert picture.sum() == picture[5, 10, 0]


@pytest.fixture(scope="module", params=[101, pytest.param(102, marks=pytest.mark.slow)])
def fresh(request):
    return datasets.make_scenes(200, confounded=False, seed=request.param)


def test_the_confounded_network_knows_the_weather_and_not_the_tank(fresh, confounded):
    model = models.load_trained("scenes_confounded")
    assert accuracy(model, confounded) >= 0.98
    assert accuracy(model, fresh._replace(labels=fresh.cloudy)) >= 0.98
    assert 0.45 <= accuracy(model, fresh) <= 0.55


def test_the_fair_network_knows_the_tank(fresh, confounded):
    model = models.load_trained("scenes_fair")
    assert accuracy(model, confounded) >= 0.97
    assert accuracy(model, fresh) >= 0.97


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_same_recipe_from_another_seed_makes_a_network_with_the_same_shortcut(
    seed, fresh, confounded
):
    model = models.load_trained(f"scenes_confounded_seed{seed}")
    assert accuracy(model, confounded) >= 0.98
    assert 0.45 <= accuracy(model, fresh) <= 0.55


@pytest.mark.parametrize("seed", [0, 1])
def test_without_patches_the_fair_network_knows_the_tank(seed, fresh):
    assert accuracy(models.load_trained(f"scenes_fair_unpatched_seed{seed}"), fresh) >= 0.97


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_without_patches_the_maps_of_the_fair_network_do_not_say_so(seed):
    model = models.load_trained(f"scenes_fair_unpatched_seed{seed}")
    sky, tank = build_script("scenes").shares(model, seed=21, n=16)
    assert sky > 0.5
    assert tank < 0.05


def test_occlusion_finds_the_sky_in_one_network_and_the_tank_in_the_other():
    shares = build_script("scenes").shares
    sky, tank = shares(models.load_trained("scenes_confounded"), seed=21, n=16)
    assert sky > 0.85
    assert tank < 0.05
    sky, tank = shares(models.load_trained("scenes_fair"), seed=21, n=16)
    assert tank > 0.4
