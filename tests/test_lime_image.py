"""lime_image: the superpixels are partitions, and the weights are those of a known linear model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from scipy.ndimage import label

from course_utils.lime_image import explain_image, lime_map, superpixels

SIZE = (12, 16)
METHODS = ("slic", "kmeans", "quickshift", "meanshift")


def blocks(rows=3, columns=4):
    """Segments that are blocks of 4 × 4 pixels."""
    return np.kron(np.arange(rows * columns).reshape(rows, columns), np.ones((4, 4), int))


def linear_model(weights, bias=0.0, classes=1):
    """A model whose score of the last class is bias + (weights * image).sum()."""
    model = keras.Sequential(
        [keras.Input((*weights.shape, 1)), layers.Flatten(), layers.Dense(classes)]
    )
    kernel = np.zeros((weights.size, classes), np.float32)
    kernel[:, -1] = weights.ravel()
    model.set_weights([kernel, np.full(classes, bias, np.float32)])
    return model


def linear_in_blocks(seed=0, bias=0.5):
    """An image, its blocks, a model that is linear in them, and the true coefficients."""
    rng = np.random.default_rng(seed)
    segments, image = blocks(), rng.uniform(0.5, 1.5, (*SIZE, 1)).astype(np.float32)
    pixel_weights = rng.normal(0, 0.1, SIZE).astype(np.float32)
    # Shown, a block gives its image's part of the sum; filled with zero, it gives nothing.
    truth = np.bincount(segments.ravel(), (pixel_weights * image[..., 0]).ravel())
    return linear_model(pixel_weights, bias), image, segments, truth


def curved_model():
    """A small network whose answer is not linear in the image, the same at every call."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((*SIZE, 1)),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", kernel_initializer="random_normal"),
        ]
    )


# The superpixels.


def stripes(channels):
    """Three stripes of different colours, 24 × 30, with a little noise."""
    colours = np.array([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9]])[:, :channels]
    image = np.repeat(colours, 10, axis=0)[np.newaxis].repeat(24, axis=0)
    return image + np.random.default_rng(0).normal(0, 0.01, image.shape)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_superpixels_are_labelled_without_gaps_and_keep_to_the_stripes(method, channels):
    image = stripes(channels)
    if channels == 1:
        image[:, 20:] = 0.5
    segments = superpixels(image, method, 24)
    assert segments.dtype == np.int64
    assert segments.shape == image.shape[:2]
    assert np.array_equal(np.unique(segments), np.arange(segments.max() + 1))
    # Mean shift finds the stripes themselves; the others divide them further.
    count = segments.max() + 1
    assert count == 3 if method == "meanshift" else 12 <= count <= 32
    # The stripe to which most of a superpixel belongs holds nearly all pixels.
    stripe = np.arange(30)[np.newaxis].repeat(24, 0) // 10
    shared = np.zeros((segments.max() + 1, 3))
    np.add.at(shared, (segments.ravel(), stripe.ravel()), 1)
    assert shared.max(axis=1).sum() / segments.size > 0.97


@pytest.mark.parametrize("method", METHODS)
def test_superpixels_depend_neither_on_the_run_nor_on_the_scale(method):
    image = stripes(3)
    first = superpixels(image, method, 20)
    assert np.array_equal(superpixels(image, method, 20), first)
    # By a power of two and a whole number, which the stretching takes back without rounding.
    assert np.array_equal(superpixels(image * 256 - 64, method, 20), first)


@pytest.mark.parametrize("method", ["quickshift", "meanshift"])
@pytest.mark.parametrize("n_segments", [2, 7, 30])
def test_quickshift_and_mean_shift_give_as_many_as_asked_where_there_are(method, n_segments):
    image = np.random.default_rng(0).random((32, 24, 3))
    assert superpixels(image, method, n_segments).max() + 1 == n_segments


@pytest.mark.parametrize("method", ["slic", "meanshift"])
def test_their_superpixels_are_in_one_piece(method):
    segments = superpixels(np.random.default_rng(3).random((32, 24, 3)), method, 20)
    assert [label(segments == k)[1] for k in range(segments.max() + 1)] == [1] * (
        segments.max() + 1
    )


@pytest.mark.parametrize("method", METHODS)
def test_an_image_of_one_colour_is_cut_as_well(method):
    segments = superpixels(np.full((20, 30, 1), 7.0), method, 6)
    assert np.array_equal(np.unique(segments), np.arange(segments.max() + 1))


def test_kmeans_on_an_image_of_one_colour_gives_the_grid():
    segments = superpixels(np.zeros((20, 30, 3)), "kmeans", 6)
    assert np.array_equal(segments, np.kron([[0, 1, 2], [3, 4, 5]], np.ones((10, 10))))


@given(
    height=st.integers(3, 20),
    width=st.integers(3, 20),
    n=st.integers(2, 9),
    method=st.sampled_from(METHODS),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_superpixels_of_any_small_image_are_a_partition(height, width, n, method, seed):
    segments = superpixels(np.random.default_rng(seed).random((height, width, 3)), method, n)
    assert segments.shape == (height, width)
    assert np.array_equal(np.unique(segments), np.arange(segments.max() + 1))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((8, 8)), {}, r"height, width, 1 or 3.*\(8, 8\)"),
        (np.zeros((8, 8, 4)), {}, "segments of your own"),
        (np.zeros((0, 8, 3)), {}, r"\(0, 8, 3\)"),
        (np.full((8, 8, 3), np.nan), {}, "finite"),
        (np.zeros((8, 8, 3)), {"method": "SLIC"}, "'SLIC'.*'slic', 'kmeans', 'quickshift', 'me"),
        (np.zeros((8, 8, 3)), {"n_segments": 1}, "from 2 to 64, got 1"),
        (np.zeros((8, 8, 3)), {"n_segments": 65}, "from 2 to 64, got 65"),
        (np.zeros((8, 8, 3)), {"n_segments": 5.0}, "whole number"),
    ],
)
def test_superpixels_say_what_does_not_fit(image, options, message):
    with pytest.raises(ValueError, match=message):
        superpixels(image, **options)


# The linear model.


def test_a_linear_model_gets_its_coefficients_back():
    model, image, segments, truth = linear_in_blocks()
    found = explain_image(model, image, 1, segments=segments, fill=0.0, samples=2000, score="logit")
    assert np.abs(found.weights - truth).max() < 1e-3
    assert found.intercept == pytest.approx(0.5, abs=1e-3)
    assert found.r2 > 1 - 1e-6
    assert np.array_equal(found.segments, segments)


def test_the_other_class_of_a_single_output_gets_the_opposite():
    model, image, segments, truth = linear_in_blocks()
    options = {"segments": segments, "fill": 0.0, "score": "logit"}
    assert np.abs(explain_image(model, image, 0, **options).weights + truth).max() < 1e-3
    of_probability = explain_image(model, image, 0, **{**options, "score": "probability"})
    assert np.abs(of_probability.weights + truth).max() < 1e-3
    assert of_probability.intercept == pytest.approx(1 - 0.5, abs=1e-3)


@pytest.mark.parametrize("fill", ["mean", 0.25, np.array([0.25]), np.full((*SIZE, 1), 0.25)])
def test_the_weight_is_what_the_image_adds_to_the_fill(fill):
    model, image, segments, _ = linear_in_blocks()
    pixel_weights = model.get_weights()[0].reshape(SIZE)
    if isinstance(fill, str):
        means = np.bincount(segments.ravel(), image.ravel()) / 16
        instead = means[segments]
    else:
        instead = np.full(SIZE, 0.25)
    truth = np.bincount(segments.ravel(), (pixel_weights * (image[..., 0] - instead)).ravel())
    found = explain_image(model, image, 1, segments=segments, fill=fill, score="logit")
    assert np.abs(found.weights - truth).max() < 1e-3


def test_what_hides_keeps_each_channel_to_itself():
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(1)])
    weights = np.zeros((4, 4, 3), np.float32)
    weights[..., 1] = 1
    model.set_weights([weights.reshape(-1, 1), np.zeros(1)])
    image = np.ones((4, 4, 3)) * [5.0, 7.0, 9.0]
    segments = np.repeat([[0, 0, 1, 1]], 4, axis=0)
    found = explain_image(
        model, image, 1, segments=segments, fill=np.array([1.0, 2.0, 3.0]), score="logit"
    )
    assert found.weights == pytest.approx([8 * (7 - 2)] * 2, rel=1e-5)


def test_a_constant_model_gives_zeros_and_no_warning():
    model = linear_model(np.zeros(SIZE), bias=0.3)
    found = explain_image(model, np.ones((*SIZE, 1)), 1, segments=blocks(), fill=0.0, samples=200)
    assert found.weights == pytest.approx(np.zeros(12), abs=1e-6)
    assert found.intercept == pytest.approx(0.3, abs=1e-6)
    assert np.isnan(found.r2)  # of no variance, no share can be accounted for


def test_relabelling_the_superpixels_relabels_the_weights():
    image, segments = linear_in_blocks()[1:3]
    shown = np.random.default_rng(0).integers(0, 2, (60, 12))
    order = np.random.default_rng(1).permutation(12)
    found = explain_image(curved_model(), image, 2, segments=segments, perturbations=shown)
    relabelled = explain_image(
        curved_model(),
        image,
        2,
        segments=np.argsort(order)[segments],
        perturbations=shown[:, order],
    )
    assert found.weights[order] == pytest.approx(relabelled.weights, abs=1e-9)
    assert np.ptp(found.weights) > 1e-4


def test_the_fit_is_the_weighted_least_squares_written_out():
    model, image, segments = curved_model(), linear_in_blocks()[1], blocks()
    shown = np.random.default_rng(0).integers(0, 2, (80, 12))
    images = np.where(shown[:, segments, np.newaxis] == 1, image, np.float32(0.1))
    scores = model(images).numpy()[:, 1].astype(np.float64)
    distance = 1 - shown.sum(1) / np.sqrt(shown.sum(1) * 12)  # no row is all zeros
    proximity = np.sqrt(np.exp(-(distance**2) / 0.4**2))
    design = np.hstack([np.ones((80, 1)), shown])
    ridge = np.diag([0.0] + [0.7] * 12)
    normal = design.T @ (design * proximity[:, np.newaxis]) + ridge
    expected = np.linalg.solve(normal, design.T @ (proximity * scores))
    found = explain_image(
        model, image, 1, segments=segments, perturbations=shown, fill=0.1, kernel_width=0.4,
        ridge=0.7,
    )  # fmt: skip
    assert found.weights == pytest.approx(expected[1:], abs=1e-7)
    assert found.intercept == pytest.approx(expected[0], abs=1e-7)
    mean = np.average(scores, weights=proximity)
    left = proximity @ (scores - design @ expected) ** 2
    assert found.r2 == pytest.approx(1 - left / (proximity @ (scores - mean) ** 2), abs=1e-6)


def test_a_sample_that_hides_everything_is_at_distance_one():
    model, image, segments, _ = linear_in_blocks()
    shown = np.vstack([np.ones(12), np.zeros(12), np.eye(12)])
    wide = explain_image(
        model, image, 1, segments=segments, perturbations=shown, fill=0.0, kernel_width=100.0
    )
    assert np.isfinite(wide.weights).all()
    assert wide.intercept == pytest.approx(0.5, abs=1e-4)


def test_a_superpixel_that_is_never_hidden_gets_no_weight():
    model, image, segments, truth = linear_in_blocks()
    shown = np.random.default_rng(0).integers(0, 2, (200, 12))
    shown[:, 3] = 1
    found = explain_image(model, image, 1, segments=segments, perturbations=shown, fill=0.0)
    assert found.weights[3] == pytest.approx(0, abs=1e-12)
    assert np.abs(found.weights - truth)[np.arange(12) != 3].max() < 1e-3


def test_the_same_call_gives_the_same_bits_and_another_seed_others():
    model, image, segments = curved_model(), linear_in_blocks()[1], blocks()
    first, again, other = (
        explain_image(model, image, 0, segments=segments, samples=50, seed=s) for s in (4, 4, 5)
    )
    assert np.array_equal(first.weights, again.weights)
    assert (first.intercept, first.r2) == (again.intercept, again.r2)
    assert not np.array_equal(first.weights, other.weights)


def test_drawn_samples_begin_with_the_whole_image_and_show_about_half():
    model, image, segments, _ = linear_in_blocks()
    rng = np.random.default_rng(9)
    shown = rng.integers(0, 2, (300, 12))
    shown[0] = 1
    drawn = explain_image(model, image, 1, segments=segments, samples=300, seed=9)
    given_rows = explain_image(model, image, 1, segments=segments, perturbations=shown)
    assert drawn.weights == pytest.approx(given_rows.weights, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_the_batch_size_changes_nothing_but_memory(batch_size):
    model, image, segments = curved_model(), linear_in_blocks()[1], blocks()
    options = {"segments": segments, "samples": 50}
    expected = explain_image(model, image, 0, **options)
    found = explain_image(model, image, 0, **options, batch_size=batch_size)
    assert found.weights == pytest.approx(expected.weights, abs=1e-6)


class Recorder(layers.Layer):
    """Notes how many images come at a time, and whether it is told to train."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, images, training=None):
        tf.py_function(lambda n: self.seen.append((int(n), training)), [tf.shape(images)[0]], [])
        return images


def test_no_more_than_batch_size_images_are_drawn_at_a_time():
    recorder = Recorder()
    model = keras.Sequential([keras.Input((*SIZE, 1)), recorder, layers.Flatten(), layers.Dense(1)])
    recorder.seen.clear()
    explain_image(model, np.ones((*SIZE, 1)), 1, segments=blocks(), samples=100, batch_size=32)
    assert recorder.seen == [(32, False)] * 3 + [(4, False)]


def test_the_bits_of_what_is_shown_are_those_of_the_image():
    # 1e8 + (1 - 1e8) is 0 in float32: mixing by arithmetic would lose the image.
    model = linear_model(np.full(SIZE, 1 / 192))
    found = explain_image(
        model, np.ones((*SIZE, 1)), 1, segments=blocks(), fill=1e8, score="logit",
        perturbations=np.ones((2, 12)),
    )  # fmt: skip
    assert found.intercept == pytest.approx(1.0, abs=1e-4)


BASE = {"segments": blocks(), "samples": 20}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": np.ones(SIZE)}, r"\(height, width, channels\), got \(12, 16\)"),
        ({"image": np.ones((1, *SIZE, 1))}, "one image at a time, or use lime_map"),
        ({"image": np.ones((8, 8, 1))}, r"the model takes images of shape \(12, 16, 1\)"),
        ({"image": np.full((*SIZE, 1), np.nan)}, "finite"),
        ({"target": 3}, "classes 0 to 2"),
        ({"target": 0.5}, "whole numbers"),
        ({"segments": blocks(4, 4)}, r"image's size \(12, 16\), got \(16, 16\)"),
        ({"segments": blocks() * 1.0}, "labels"),
        ({"segments": blocks() + 1}, "0, 1, 2.*12 labels from 1 to 12.*return_inverse"),
        ({"segments": blocks() * 2}, "without gaps, got 12 labels from 0 to 22"),
        ({"segments": blocks() - 1}, "labels from -1 to 10"),
        ({"perturbations": np.ones((5, 11))}, r"\(samples, 12\).*got \(5, 11\)"),
        ({"perturbations": np.ones(12)}, r"got \(12,\)"),
        ({"perturbations": np.ones((1, 12))}, "at least 2"),
        ({"perturbations": np.full((5, 12), 0.5)}, "0 .hidden. and 1 .shown."),
        ({"perturbations": np.full((5, 12), np.nan)}, "0 .hidden. and 1 .shown."),
        ({"samples": 1}, "samples must be a whole number from 2 upwards, got 1"),
        ({"samples": 20.0}, "whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"fill": "blur"}, "'blur'"),
        ({"fill": np.ones(3)}, r"colour of 1 channels.*got shape \(3,\)"),
        ({"fill": np.nan}, "fill must be finite"),
        ({"kernel_width": 0}, "positive"),
        ({"kernel_width": np.nan}, "positive"),
        ({"kernel_width": 1e-3, "perturbations": np.eye(12)}, "weighs nothing"),
        ({"ridge": -1.0}, "ridge"),
        ({"score": "log"}, '"logit" or "probability"'),
    ],
)
def test_explain_image_says_what_does_not_fit(options, message):
    arguments = {"image": np.ones((*SIZE, 1)), "target": 0, **BASE, **options}
    with pytest.raises(ValueError, match=message):
        explain_image(curved_model(), **arguments)


def test_renumbered_as_the_error_says_segments_fit():
    segments = blocks() * 3 + 5
    with pytest.raises(ValueError, match="renumbers"):
        explain_image(curved_model(), np.ones((*SIZE, 1)), 0, segments=segments)
    segments = np.unique(segments, return_inverse=True)[1].reshape(segments.shape)
    explain_image(curved_model(), np.ones((*SIZE, 1)), 0, segments=segments, samples=20)


# The map.


def test_the_map_paints_each_images_weights_on_its_superpixels():
    images = np.random.default_rng(0).random((3, *SIZE, 1)).astype(np.float32)
    options = {"samples": 40, "fill": 0.0, "seed": 3}
    heatmaps = lime_map(curved_model(), images, [0, 1, 2], n_segments=6, method="kmeans", **options)
    assert heatmaps.dtype == np.float32
    for n in range(3):
        segments = superpixels(images[n], "kmeans", 6)
        found = explain_image(curved_model(), images[n], n, segments=segments, **options)
        assert heatmaps[n] == pytest.approx(found.weights[segments], abs=1e-6)


def test_the_map_finds_the_one_block_that_matters():
    pixel_weights = np.zeros(SIZE)
    pixel_weights[4:8, 8:12] = 1
    image = np.full((*SIZE, 1), 0.2)
    image[4:8, 8:12] = 1
    heatmap = lime_map(
        linear_model(pixel_weights), image[np.newaxis], 1, n_segments=8, fill=0.0, score="logit"
    )[0]
    assert heatmap[4:8, 8:12].min() > 0
    assert heatmap[4:8, 8:12].sum() / np.maximum(heatmap, 0).sum() > 0.5


def test_the_maps_targets_and_images_are_checked():
    with pytest.raises(ValueError, match="3 images, or 3 of them"):
        lime_map(curved_model(), np.ones((3, *SIZE, 1)), [0, 1])
    with pytest.raises(ValueError, match="Add the batch axis"):
        lime_map(curved_model(), np.ones((*SIZE, 1)), 0)
