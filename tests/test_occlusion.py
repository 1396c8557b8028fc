"""Occlusion agrees with the plain loop over every occluded image, by whichever path it goes."""

import gc
import weakref

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from course_utils import _partial, models, occlusion
from course_utils._plain import flattened
from course_utils._scores import score_model


def by_hand(model, images, targets, patch, stride, fill):
    """The drop of the model's score as the documents compute it: a copy of the image at a time."""
    maps = []
    for image, target in zip(images, targets, strict=True):
        places, occluded = [], []
        for row, column, changed in occlusion.iter_occlusion(image, patch, stride, fill):
            places.append((row, column))
            occluded.append(changed)
        scores = model.predict(np.stack([image, *occluded]), verbose=0)
        if scores.shape[1] == 1:
            scores = np.hstack([1 - scores, scores])
        drops, covers = np.zeros((2, *image.shape[:2]))
        for (row, column), score in zip(places, scores[1:, target], strict=True):
            drops[row : row + patch, column : column + patch] += scores[0, target] - score
            covers[row : row + patch, column : column + patch] += 1
        maps.append(drops / covers)
    return np.array(maps)


def with_random_weights(model, seed):
    """Weights that leave no score saturated; variances and gammas positive, no mean zero."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0.1, 1, weight.shape)
        if weight.path.endswith(("gamma", "variance")):
            values = rng.uniform(0.5, 2, weight.shape)
        elif len(weight.shape) > 1:
            values /= np.sqrt(np.prod(weight.shape[:-1]))
        weight.assign(values)
    return model


def a_linear_model(shape, seed=0):
    flat = [keras.Input(shape), layers.Flatten(), layers.Dense(2)]
    return with_random_weights(keras.Sequential(flat), seed)


@st.composite
def local_layers(draw):
    """A layer that the fast path knows, and what it takes to make it."""
    kind = draw(st.sampled_from(["conv", "conv", "max", "average", "norm", "relu", "dropout"]))
    padding = draw(st.sampled_from(["same", "valid"]))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    if kind == "conv":
        dilation = draw(st.sampled_from([1, 1, 2])) if strides == (1, 1) else 1
        options = {
            "kernel_initializer": "zeros",  # and not from Python's random, which hypothesis owns
            "padding": padding,
            "strides": strides,
            "dilation_rate": dilation,
            "use_bias": draw(st.booleans()),
            "activation": draw(st.sampled_from([None, "relu", "tanh", "softmax"])),
        }
        return layers.Conv2D, (3, size), options
    if kind in ("max", "average"):
        pooling = layers.MaxPooling2D if kind == "max" else layers.AveragePooling2D
        return pooling, (size,), {"padding": padding, "strides": strides}
    if kind == "dropout":
        return layers.Dropout, (0.5,), {"seed": 0}
    return {"norm": layers.BatchNormalization, "relu": layers.ReLU}[kind], (), {}


@st.composite
def chains(draw):
    """A chain of random layers with a head, for images of an odd size."""
    shape = (draw(st.integers(9, 23)), draw(st.integers(9, 23)), draw(st.integers(1, 3)))
    inputs = x = keras.Input(shape)
    for make, values, options in draw(st.lists(local_layers(), min_size=1, max_size=5)):
        layer = make(*values, **options)
        kernel = getattr(layer, "kernel_size", getattr(layer, "pool_size", (1, 1)))
        dilation = getattr(layer, "dilation_rate", (1, 1))
        room = zip(kernel, dilation, x.shape[1:3], strict=True)
        if all((k - 1) * d < length for k, d, length in room):
            x = layer(x)
    heads = [layers.Flatten, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D]
    x = draw(st.sampled_from(heads))()(x)
    units, activation = draw(st.sampled_from([(3, "softmax"), (1, "sigmoid"), (2, None)]))
    head = layers.Dense(units, activation=activation, kernel_initializer="zeros")
    model = keras.Model(inputs, head(x))
    return with_random_weights(model, seed=draw(st.integers(0, 99)))


CHAINS = {
    "as in VGG": [
        layers.Conv2D(3, 3, padding="same", activation="relu"),
        layers.Conv2D(3, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(4, 3, padding="same", activation="relu"),
    ],
    "averages do not count the padding": [
        layers.Conv2D(3, 2),
        layers.AveragePooling2D(3, strides=1, padding="same"),
        layers.AveragePooling2D((2, 3), padding="same"),
    ],
    "maxima of negative values are not those of the padding": [
        layers.Conv2D(3, 2, activation="log_softmax"),
        layers.MaxPooling2D(3, strides=2, padding="same"),
    ],
    "strides that skip pixels": [
        layers.Conv2D(4, (3, 2), strides=(2, 3), padding="same"),
        layers.Conv2D(3, 1, strides=2),
    ],
    "holes": [
        layers.Conv2D(4, (2, 3), dilation_rate=(2, 1), padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(3, 2, dilation_rate=3),
        layers.MaxPooling2D(2),
    ],
}


@pytest.mark.parametrize("parts", CHAINS.values(), ids=CHAINS)
def test_chains_of_each_kind_give_what_the_loop_gives(parts):
    parts = [layer.__class__.from_config(layer.get_config()) for layer in parts]
    head = [layers.Flatten(), layers.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((25, 21, 2)), *parts, *head])
    with_random_weights(model, seed=5)
    flat = flattened(model, (25, 21, 2))
    assert len(_partial.make_plan(flat, 4, 3)) == len(parts)
    images = np.random.default_rng(2).normal(size=(1, 25, 21, 2)).astype(np.float32)
    found = occlusion.occlusion_map(model, images, 1, patch=4, stride=3, fill=0.4)
    expected = by_hand(model, images, [1], 4, 3, 0.4)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@settings(
    max_examples=settings.default.max_examples // 4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(chains(), st.data())
def test_a_chain_gives_what_the_loop_gives(model, data):
    shape = model.input_shape[1:]
    patch = data.draw(st.integers(1, 6), label="patch")
    stride = data.draw(st.integers(max(1, patch - 3), patch), label="stride")
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    images = rng.normal(size=(2, *shape)).astype(np.float32)
    fills = [0.3, rng.normal(size=shape[2]), rng.normal(size=shape)]
    fill = data.draw(st.sampled_from(fills), label="fill")
    batch_size = data.draw(st.sampled_from([7, 64]), label="batch size")
    found = occlusion.occlusion_map(
        model, images, [0, 1], patch=patch, stride=stride, fill=fill, batch_size=batch_size
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, by_hand(model, images, [0, 1], patch, stride, fill), rtol=0, atol=1e-5
    )


def a_branching_model():
    inputs = keras.Input((17, 13, 2))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.Add()([x, layers.Conv2D(4, 3, padding="same")(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return with_random_weights(
        keras.Model(inputs, layers.Dense(3, activation="softmax")(x)), seed=3
    )


def test_a_branching_network_gives_what_the_loop_gives():
    model = a_branching_model()
    assert _partial.partial_pass(model, (17, 13, 2), 4, 3)
    images = np.random.default_rng(0).normal(size=(2, 17, 13, 2))
    found = occlusion.occlusion_map(model, images, [2, 0], patch=4, stride=3, fill=0.5)
    expected = by_hand(model, images.astype(np.float32), [2, 0], 4, 3, 0.5)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["digits", "squares", "scenes_fair"])
def test_the_course_s_networks_take_the_fast_path_and_give_what_the_loop_gives(name):
    model = models.load_trained(name)
    shape = model.input_shape[1:]
    assert _partial.make_plan(flattened(model, shape), 8, 8)
    images = np.random.default_rng(1).uniform(size=(1, *shape)).astype(np.float32)
    found = occlusion.occlusion_map(model, images, 0, patch=8, fill=0.5)
    np.testing.assert_allclose(found, by_hand(model, images, [0], 8, 8, 0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_class_0_of_a_sigmoid_is_the_opposite_of_class_1(score):
    model = keras.Sequential([keras.Input((15, 15, 1)), layers.Conv2D(4, 3), layers.Flatten()])
    model.add(layers.Dense(1, activation="sigmoid"))
    image = np.random.default_rng(0).normal(size=(1, 15, 15, 1))
    none, one = (occlusion.occlusion_map(model, image, t, patch=4, score=score) for t in (0, 1))
    assert np.abs(one).max() > 1e-3
    np.testing.assert_allclose(none, -one, atol=1e-6)


def test_logits_are_those_before_the_softmax():
    model = with_random_weights(
        keras.Sequential(
            [
                keras.Input((14, 11, 1)),
                layers.Conv2D(3, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(3, activation="softmax"),
            ]
        ),
        seed=1,
    )
    images = np.random.default_rng(0).normal(size=(1, 14, 11, 1)).astype(np.float32)
    logits = score_model(model, "logit")
    found = occlusion.occlusion_map(model, images, 2, patch=3, score="logit")
    np.testing.assert_allclose(found, by_hand(logits, images, [2], 3, 3, 0.0), rtol=0, atol=1e-5)


@settings(max_examples=10)
@given(st.integers(1, 9), st.data())
def test_a_linear_model_drops_by_weight_times_what_is_taken_away(patch, data):
    stride = data.draw(st.integers(1, patch))
    model = a_linear_model((9, 12, 2))
    weights = model.get_weights()[0][:, 1].reshape(9, 12, 2).astype(np.float64)
    image = np.random.default_rng(patch).normal(size=(9, 12, 2)).astype(np.float32)
    lost = (weights * (image - np.float32([0.5, -1.0]))).sum(axis=-1)
    drops, covers = np.zeros((2, 9, 12))
    for row in range(0, 9 - patch + stride, stride):
        for column in range(0, 12 - patch + stride, stride):
            covered = np.s_[row : row + patch, column : column + patch]
            drops[covered] += lost[covered].sum()
            covers[covered] += 1
    assert covers.min() >= 1
    found = occlusion.occlusion_map(
        model, image[np.newaxis], 1, patch=patch, stride=stride, fill=[0.5, -1.0]
    )
    np.testing.assert_allclose(found[0], drops / covers, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chain", [True, False])
def test_a_constant_model_is_explained_by_zeros(chain):
    model = a_branching_model()
    if chain:
        model = keras.Sequential([keras.Input((17, 13, 2)), layers.Conv2D(2, 3), layers.Flatten()])
        model.add(layers.Dense(3))
    model.set_weights([0 * w for w in model.get_weights()])
    images = np.random.default_rng(0).normal(size=(2, 17, 13, 2))
    # The softmax of a batch of another size may be rounded in another way.
    np.testing.assert_allclose(occlusion.occlusion_map(model, images, 1, patch=5), 0, atol=1e-6)


def test_an_image_occluded_by_itself_loses_nothing():
    model = models.load_trained("digits")
    image = np.random.default_rng(0).uniform(size=(28, 28, 1))
    heatmap = occlusion.occlusion_map(model, image[np.newaxis], 3, patch=5, fill=image)
    np.testing.assert_allclose(heatmap, 0, atol=1e-6)


def test_the_same_call_gives_the_same_bits_and_other_batches_the_same_map():
    model = models.load_trained("digits")
    images = np.random.default_rng(0).uniform(size=(2, 28, 28, 1)).astype(np.float32)
    kept = images.copy()
    first, again = (occlusion.occlusion_map(model, images, 5, patch=7) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(images, kept)
    by_three = occlusion.occlusion_map(model, images, 5, patch=7, batch_size=3)
    np.testing.assert_allclose(by_three, first, atol=1e-6)


def test_new_weights_are_used_and_dropped_models_are_forgotten():
    model = keras.Sequential([keras.Input((12, 12, 1)), layers.Conv2D(2, 3), layers.Flatten()])
    model.add(layers.Dense(2))
    image = np.random.default_rng(0).normal(size=(1, 12, 12, 1))
    before = occlusion.occlusion_map(model, image, 0, patch=3)
    model.layers[0].set_weights([2 * w for w in model.layers[0].get_weights()])
    np.testing.assert_allclose(
        occlusion.occlusion_map(model, image, 0, patch=3), 2 * before, atol=1e-6
    )
    model.add(layers.Rescaling(3.0))
    np.testing.assert_allclose(
        occlusion.occlusion_map(model, image, 0, patch=3), 6 * before, atol=1e-5
    )
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_a_patch_at_the_edge_is_cut_off_and_the_image_is_left_alone():
    image = np.arange(25.0).reshape(5, 5, 1)
    places = [(r, c, x) for r, c, x in occlusion.iter_occlusion(image, 3, fill=-1)]
    assert [(r, c) for r, c, _ in places] == [(0, 0), (0, 3), (3, 0), (3, 3)]
    assert (places[3][2][3:, 3:] == -1).all()
    assert (places[3][2] == -1).sum() == 4
    assert np.array_equal(image, np.arange(25.0).reshape(5, 5, 1))


def test_progress_counts_the_occluded_images(capsys):
    model = a_linear_model((6, 6, 1))
    occlusion.occlusion_map(model, np.zeros((2, 6, 6, 1)), 0, patch=2, progress=True)
    assert "18/18" in capsys.readouterr().err
    occlusion.occlusion_map(model, np.zeros((2, 6, 6, 1)), 0, patch=2)
    assert capsys.readouterr().err == ""


IMAGES = np.zeros((2, 6, 6, 3), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES[0]}, r"image\[np.newaxis\]"),
        ({"images": IMAGES[..., :1]}, r"takes images of shape \(6, 6, 3\)"),
        ({"images": IMAGES[:0]}, "empty batch"),
        ({"images": np.full_like(IMAGES, np.nan)}, "NaN or infinity"),
        ({"images": IMAGES.astype(str)}, "must be numbers"),
        ({"targets": 2}, "target 2 does not exist: the model has classes 0 to 1"),
        ({"targets": -1}, "target -1 does not exist"),
        ({"targets": [0, 1, 1]}, r"got shape \(3,\)"),
        ({"targets": 0.5}, "whole numbers"),
        ({"patch": 7}, "patch of 7 pixels is larger than the image"),
        ({"patch": 0}, "patch must be a whole number from 1 upwards, got 0"),
        ({"patch": 2.0}, "patch must be a whole number"),
        ({"stride": True}, "stride must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"stride": 4}, "a stride of 4 leaves gaps between patches of 3 pixels"),
        ({"fill": [0, 1]}, "a colour of 3 channels"),
        ({"fill": np.inf}, "fill must be finite"),
        ({"score": "loss"}, '"logit" or "probability", got \'loss\''),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments = {"images": IMAGES, "targets": 0, "patch": 3, **changes}
    with pytest.raises(ValueError, match=message):
        occlusion.occlusion_map(a_linear_model((6, 6, 3)), **arguments)


def test_iter_occlusion_wants_one_image():
    with pytest.raises(ValueError, match=r"\(height, width, channels\), got \(2, 6, 6, 3\)"):
        next(occlusion.iter_occlusion(IMAGES))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 3), (64, 32, 32, 3)])
def test_what_is_written_into_the_array_the_tensor_holds(shape):
    array, tensor = occlusion._one_memory(shape)
    for seed in (0, 1):
        array[:] = np.random.default_rng(seed).random(shape)
        np.testing.assert_array_equal(tensor.numpy(), array)
    assert array.ctypes.data % 64 == 0
    assert array.dtype == np.float32
