"""Attacks keep to every bound on the network itself, move its maps, and leave it as it was."""

import functools
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

from course_utils import _bent, attack, datasets, metrics, models
from course_utils.attack import attack_explanation, randomize_layers
from course_utils.gradients import saliency_map, smoothgrad

SHAPE = (12, 12, 3)


@functools.cache
def tanks():
    """The fair detector, six scenes with a tank, where these are, and their maps."""
    model = models.load_trained("scenes_fair")
    scenes = datasets.make_scenes(40, confounded=False, seed=1)
    some = np.flatnonzero(scenes.labels == 1)[:6]
    images = scenes.images[some]
    return model, images, scenes.tank_masks[some], saliency_map(model, images, 1)


@functools.cache
def attacked(epsilon=8 / 255):
    model, images, masks, _ = tanks()
    options = {"goal": "region", "region": ~masks, "low": 0, "high": 1, "steps": 40}
    found = attack_explanation(model, images, 1, epsilon=epsilon, **options)
    return found, saliency_map(model, found.images, 1)


def beside(images, epsilon, seed=0):
    """Every value changed by `epsilon`, up or down at random: the control."""
    signs = np.random.default_rng(seed).choice([-1, 1], images.shape)
    return np.clip(images + epsilon * signs, 0, 1).astype(np.float32)


@pytest.mark.parametrize("epsilon", [8 / 255, 0.01])
def test_no_value_changes_by_more_than_epsilon_or_leaves_the_range(epsilon):
    _, images, _, _ = tanks()
    found, _ = attacked(epsilon)
    exact = np.abs(found.images.astype(np.float64) - images).max(axis=(1, 2, 3))
    assert (exact <= epsilon).all()
    assert (exact > 0.999 * epsilon).all()  # and the room there is, it uses
    assert (np.abs(found.images - images).max() <= np.float64(epsilon)).all()
    assert (found.changes == np.abs(found.images - images).max(axis=(1, 2, 3))).all()
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert found.images.dtype == found.changes.dtype == np.float32


@given(st.floats(1e-6, 1e6), st.floats(-3, 3), st.integers(0, 99))
def test_rounding_never_leads_beyond_the_bound(epsilon, scale, seed):
    images = np.random.default_rng(seed).normal(0, 10.0**scale, (1, 4, 4, 1)).astype(np.float32)
    for bound in attack._bounds(images, epsilon, None, None):
        assert bound.dtype == np.float32
        assert np.abs(bound.astype(np.float64) - images.astype(np.float64)).max() <= epsilon
        assert np.float64(np.abs(bound - images).max()) <= epsilon


def test_the_network_itself_gives_the_same_answer():
    model, images, _, _ = tanks()
    logits = models.logit_model(model)
    found, _ = attacked()
    before, after = (model.predict(x, verbose=0)[:, 0] for x in (images, found.images))
    np.testing.assert_allclose(found.before, before, atol=1e-6)
    np.testing.assert_allclose(found.after, after, atol=1e-6)
    assert ((before > 0.5) == (after > 0.5)).all()
    assert np.abs(after - before).max() <= 0.05
    # Above 10, where a probability tells nothing any more, the logit is the same as well.
    before, after = (logits.predict(x, verbose=0) for x in (images, found.images))
    assert before.min() > 8
    assert np.abs(after - before).max() <= 0.051


def test_the_map_leaves_the_tank_and_a_random_change_of_that_size_does_not_move_it_so():
    model, images, masks, old = tanks()
    found, new = attacked()
    control = saliency_map(model, beside(images, 8 / 255), 1)
    assert found.moved.all()
    inside = [metrics.mass_inside(m, masks) for m in (old, control, new)]
    assert (inside[0] > 0.4).all()
    assert (inside[1] > 0.85 * inside[0]).all()
    assert (inside[2] < 0.7 * inside[0]).all()
    assert inside[2].mean() < 0.55 * inside[0].mean()
    like_control, like_new = (metrics.rank_correlation(old, m) for m in (control, new))
    assert (like_new < like_control - 0.05).all()
    assert like_new.mean() < like_control.mean() - 0.1


def test_the_map_gathers_where_it_is_told_to():
    model, images, _, old = tanks()
    region = np.zeros((64, 64), bool)
    region[40:, :24] = True
    found = attack_explanation(
        model, images, 1, epsilon=8 / 255, goal="region", region=region, steps=40
    )
    new = saliency_map(model, found.images, 1)
    region = np.broadcast_to(region, old.shape)
    assert (metrics.mass_inside(new, region) > metrics.mass_inside(old, region)).all()
    assert metrics.mass_inside(new, region).mean() > 1.5 * metrics.mass_inside(old, region).mean()


def top_pixels(heatmaps, share):
    count = round(share * heatmaps[0].size)
    order = np.argsort(-heatmaps.reshape(len(heatmaps), -1), axis=1, kind="stable")
    return [set(row[:count]) for row in order]


def test_the_largest_values_leave_their_pixels():
    model, images, _, old = tanks()
    found = attack_explanation(model, images, 1, epsilon=8 / 255, top=0.02, steps=40)
    maps = {"attacked": found.images, "control": beside(images, 8 / 255)}
    shared = {}
    for name, changed in maps.items():
        pairs = zip(
            top_pixels(old, 0.02), top_pixels(saliency_map(model, changed, 1), 0.02), strict=True
        )
        shared[name] = np.array([len(a & b) / len(a) for a, b in pairs])
    assert (shared["attacked"] < shared["control"]).all()
    assert shared["attacked"].mean() < 0.75 * shared["control"].mean()


def centre(heatmaps):
    shares = heatmaps / heatmaps.sum(axis=(1, 2), keepdims=True)
    rows, columns = np.mgrid[: heatmaps.shape[1], : heatmaps.shape[2]]
    return np.stack([(shares * rows).sum((1, 2)), (shares * columns).sum((1, 2))], axis=1)


def test_the_centre_of_mass_moves():
    model, images, _, old = tanks()
    found = attack_explanation(model, images, 1, epsilon=8 / 255, goal="centre", steps=40)
    changed = {"attacked": found.images, "control": beside(images, 8 / 255)}
    way = {
        name: np.linalg.norm(centre(saliency_map(model, x, 1)) - centre(old), axis=1)
        for name, x in changed.items()
    }
    assert (way["attacked"] > 2 * way["control"]).all()
    assert way["attacked"].mean() > 3


def test_the_same_call_gives_the_same_bits_and_another_seed_others():
    model, images, masks, _ = tanks()
    options = {"epsilon": 0.02, "goal": "region", "region": ~masks[:2], "steps": 5}
    first, again = (attack_explanation(model, images[:2], 1, **options) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    other = attack_explanation(model, images[:2], 1, **options, seed=1)
    assert (other.images != first.images).any(axis=(1, 2, 3)).all()


def test_it_is_compiled_once_for_all_numbers_of_images_steps_and_seeds():
    model, images, _, _ = tanks()
    compiled = attack._compiled(model, ("top", 0, "logit"), model.input_shape[1:])
    for count, steps, seed, batch_size in ((1, 2, 0, 32), (5, 3, 1, 2), (2, 1, 7, 64)):
        attack_explanation(
            model, images[:count], 1, epsilon=0.01, steps=steps, seed=seed, batch_size=batch_size
        )
    assert attack._compiled(model, ("top", 0, "logit"), model.input_shape[1:]) is compiled
    assert compiled.experimental_get_tracing_count() == 1


def test_an_attack_on_smoothgrad_moves_smoothgrad():
    model, images, masks, _ = tanks()
    images, masks = images[:3], masks[:3]
    options = {"epsilon": 8 / 255, "goal": "region", "region": ~masks, "low": 0, "high": 1}
    plain = attack_explanation(model, images, 1, **options, steps=20)
    adaptive = attack_explanation(model, images, 1, **options, steps=20, samples=4, batch_size=12)
    assert adaptive.moved.all()
    inside = {
        name: metrics.mass_inside(smoothgrad(model, x, 1, samples=32, seed=9), masks).mean()
        for name, x in {"none": images, "plain": plain.images, "adaptive": adaptive.images}.items()
    }
    assert inside["adaptive"] < inside["plain"] < inside["none"]
    assert inside["adaptive"] < 0.8 * inside["none"]


def as_built():
    """Networks of each kind of ReLU and of each way to put a model together."""
    relu, x = layers.ReLU, keras.Input(SHAPE)
    conv = functools.partial(layers.Conv2D, 8, 3, padding="same")
    head = [layers.Flatten(), layers.Dense(3, activation="softmax")]

    def functional(*between, inputs=x):
        tensor = inputs
        for part in between:
            tensor = part(tensor)
        return keras.Model(inputs, tensor)

    inner = keras.Sequential([keras.Input(SHAPE), conv(activation="relu")], name="inner")
    return {
        "Sequential": keras.Sequential([keras.Input(SHAPE), conv(activation="relu"), *head]),
        "BatchNorm, ReLU6": functional(conv(), layers.BatchNormalization(), relu(6.0), *head),
        "nested": keras.Sequential([keras.Input(SHAPE), inner, *map(copied, head)]),
        "leaky": functional(conv(), layers.LeakyReLU(0.1), *map(copied, head)),
        "leaky function": functional(conv(activation="leaky_relu"), *map(copied, head)),
        "threshold": functional(conv(), relu(4.0, 0.1, 0.2), *map(copied, head)),
        "an operation": functional(conv(), ops.relu, *map(copied, head)),
        "another": functional(conv(), ops.leaky_relu, *map(copied, head)),
        "Activation": functional(conv(), layers.Activation("relu"), *map(copied, head)),
        "sigmoid": functional(
            conv(activation="relu"), layers.Flatten(), layers.Dense(1, "sigmoid")
        ),
        "scores": functional(conv(activation="relu"), layers.Flatten(), layers.Dense(3)),
    }


def copied(layer):
    return type(layer).from_config({**layer.get_config(), "name": None})


@functools.cache
def built():
    keras.utils.set_random_seed(0)
    return as_built()


NAMES = (
    "Sequential",
    "BatchNorm, ReLU6",
    "nested",
    "leaky",
    "leaky function",
    "threshold",
    "an operation",
    "another",
    "Activation",
    "sigmoid",
    "scores",
)
NOISE = np.random.default_rng(0).random((2, *SHAPE), np.float32)


# Each compiles a step of its own: some are attacked each time, and all of them looked at below.
QUICK = ("BatchNorm, ReLU6", "leaky", "sigmoid")
ATTACKED = [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in NAMES]


@pytest.mark.parametrize("name", ATTACKED)
def test_every_kind_of_network_is_attacked_and_left_as_it_was(name):
    model = built()[name]
    parts = [(part, vars(part).copy()) for part in _bent.parts(model)]
    outputs, old = model.predict(NOISE, verbose=0), saliency_map(model, NOISE, 0)
    found = attack_explanation(model, NOISE, 0, epsilon=0.1, steps=15)
    assert found.moved.all()
    new = saliency_map(model, found.images, 0)
    kept = [old[i][old[i] >= np.quantile(old[i], 0.95)].sum() / old[i].sum() for i in range(2)]
    left = [new[i][old[i] >= np.quantile(old[i], 0.95)].sum() / new[i].sum() for i in range(2)]
    assert np.array(left).mean() < 0.9 * np.array(kept).mean()
    np.testing.assert_allclose(model.predict(NOISE, verbose=0), outputs, atol=1e-6)
    for part, was in parts:
        assert vars(part).keys() == was.keys()
        assert vars(part).get("activation") is was.get("activation")


@pytest.mark.parametrize("name", NAMES)
def test_meanwhile_outputs_and_gradients_are_the_network_s_own(name):
    model = models.logit_model(built()[name])
    images = tf.constant(NOISE)

    def look():
        with tf.GradientTape() as outer:
            outer.watch(images)
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = model(images)
                picked = outputs[:, 0]
            slopes = tape.gradient(picked, images)
            size = tf.reduce_sum(slopes**2)
        second = outer.gradient(size, images, unconnected_gradients="zero")
        return outputs.numpy(), slopes.numpy(), second.numpy()

    with _bent.bent(model):
        outputs, slopes, second = look()
    own_outputs, own_slopes, own_second = look()
    np.testing.assert_allclose(outputs, own_outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slopes, own_slopes, rtol=1e-5, atol=1e-6)
    assert np.abs(second).max() > 1e-3
    assert np.abs(own_second).max() == 0


def test_the_step_s_gradient_is_that_of_the_sigmoid():
    inputs = np.array([[-1.5, -0.2, 0.1, 0.7, 3.0, 6.1]], np.float32)
    width = inputs.std() / _bent.SHARPNESS

    def bump(x):  # the derivative of a sigmoid
        return 1 / (4 * np.cosh(x / (2 * width)) ** 2) / width

    for bends, expected in (
        ((0.0, 0.0, np.inf), bump(inputs)),
        ((0.25, 0.5, np.inf), 0.75 * bump(inputs - 0.5)),
        ((0.0, 0.0, 6.0), bump(inputs) - bump(inputs - 6.0)),
    ):
        x = tf.constant(inputs)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = _bent.bent_relu(tf.nn.relu, bends, x)
            slope = tape.gradient(y, x)
        found = outer.gradient(slope, x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_network_is_left_as_it_was_when_something_goes_wrong():
    model = built()["Sequential"]
    activation = model.layers[0].activation

    def look():
        with _bent.bent(model):
            assert model.layers[0].activation is not activation
            return {}["something"]

    with pytest.raises(KeyError):
        look()
    assert model.layers[0].activation is activation


def test_scores_are_attacked_as_the_softmax_over_them_and_class_0_as_class_1():
    scores = built()["scores"]
    softmax = keras.Model(scores.inputs, layers.Softmax()(scores.outputs[0]))
    options = {"epsilon": 0.02, "steps": 5}
    # A slope that is all but 0 may be rounded to either sign, and its value goes either way.
    one, other = (attack_explanation(m, NOISE, 1, **options) for m in (scores, softmax))
    np.testing.assert_allclose(one.before, other.before, atol=1e-6)
    assert (np.abs(one.images - other.images) < 1e-5).mean() > 0.99
    one, other = (attack_explanation(built()["sigmoid"], NOISE, t, **options) for t in (0, 1))
    np.testing.assert_allclose(one.before, 1 - other.before, atol=1e-6)
    assert (np.abs(one.images - other.images) < 1e-5).mean() > 0.99


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_other_classes_keep_their_probabilities_too(score):
    model = built()["Sequential"]
    found = attack_explanation(
        model, NOISE, [2, 0], epsilon=0.3, tolerance=0.01, steps=15, score=score
    )
    before, after = (model.predict(x, verbose=0) for x in (NOISE, found.images))
    assert np.abs(after - before).max() <= 0.01
    assert (after.argmax(1) == before.argmax(1)).all()


def test_where_nothing_keeps_to_the_bounds_the_image_stays_as_it_was():
    model = built()["sigmoid"]
    found = attack_explanation(model, NOISE, 1, epsilon=0.3, tolerance=1e-12, steps=3)
    np.testing.assert_array_equal(found.images, NOISE)
    assert not found.moved.any()
    np.testing.assert_array_equal(found.before, found.after)
    assert (found.changes == 0).all()


def test_what_the_search_returns_is_judged_once_more(monkeypatch):
    model, images, _, _ = tanks()
    grey = np.full_like(images[:2], 0.5)
    grey[1] = images[1]
    monkeypatch.setattr(attack, "_search", lambda *_: tf.constant(grey))
    found = attack_explanation(model, images[:2], 1, epsilon=1.0)
    np.testing.assert_array_equal(found.images, images[:2])
    assert not found.moved.any()


@pytest.mark.parametrize("units", [1, 2])
def test_another_class_is_refused_however_near_the_probability(units, monkeypatch):
    flat = [keras.Input((1, 1, 1)), layers.Flatten(), layers.Dense(units)]
    model = keras.Sequential([*flat, layers.Activation("sigmoid" if units == 1 else "softmax")])
    model.layers[1].set_weights([np.array([[1.0, -1.0][:units]]), np.zeros(units)])
    images = np.array([0.01, 0.01], np.float32).reshape(2, 1, 1, 1)
    changed = np.array([0.001, -0.001], np.float32).reshape(2, 1, 1, 1)
    monkeypatch.setattr(attack, "_search", lambda *_: tf.constant(changed))
    found = attack_explanation(model, images, 1, epsilon=0.1)
    np.testing.assert_array_equal(found.images.ravel(), np.float32([0.001, 0.01]))
    assert found.moved.tolist() == [True, False]


@pytest.mark.parametrize("goal", ["top", "region", "centre"])
def test_a_map_of_zeros_lies_nowhere_and_is_no_map_elsewhere(goal):
    # Where the mean is below a half, as nearly everywhere around the first image and at the second,
    # the score is flat.
    parts = [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(1, "relu"), layers.Dense(1)]
    model = keras.Sequential(parts)
    weights = [[1 / 16]] * 16, [-0.5], [[1e-3]], [1.0]
    model.set_weights([np.array(w) for w in weights])
    images = np.repeat(np.float32([0.51, 0.4]), 16).reshape(2, 4, 4, 1)
    options = {"goal": goal, "steps": 3, "high": 0.52}
    if goal == "region":
        options["region"] = np.eye(4, dtype=bool)
    found = attack_explanation(model, images, 0, epsilon=0.3, **options)
    assert not found.moved.any()
    np.testing.assert_array_equal(found.images, images)


def test_the_map_of_a_linear_model_cannot_be_moved():
    model = keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(2)])
    found = attack_explanation(model, NOISE, 1, epsilon=0.1, steps=3)
    assert not found.moved.any()
    np.testing.assert_array_equal(found.images, NOISE)


def test_a_model_can_be_forgotten():
    keras.utils.set_random_seed(0)
    conv = layers.Conv2D(2, 3, activation="relu")
    model = keras.Sequential([keras.Input(SHAPE), conv, layers.Flatten(), layers.Dense(2)])
    attack_explanation(model, NOISE, 1, epsilon=0.1, steps=1)
    forgotten = weakref.ref(model)
    del model, conv
    gc.collect()
    assert forgotten() is None


REGION = np.eye(12, dtype=bool)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0}, "epsilon must be a positive number, got 0"),
        ({"epsilon": np.nan}, "epsilon must be a positive number, got nan"),
        ({"goal": "mass"}, 'goal must be "top", "region" or "centre", got \'mass\''),
        ({"goal": "region"}, 'region goes with goal="region", and that goal needs it'),
        ({"region": REGION}, 'region goes with goal="region"'),
        ({"goal": "region", "region": REGION * 1}, r"bool array of shape \(12, 12\) or \(2, 12"),
        ({"goal": "region", "region": REGION[:5]}, r"got bool \(5, 12\)"),
        ({"goal": "region", "region": REGION & False}, "some of the pixels of each image"),
        ({"goal": "region", "region": REGION | True}, "and not all of them"),
        ({"top": 1}, "top must be a positive number below 1, got 1"),
        ({"tolerance": 0}, "tolerance must be a positive number, got 0"),
        ({"low": 0.5}, "the images must lie within low and high, 0.5 to inf, got"),
        ({"high": 0.5}, "within low and high, -inf to 0.5"),
        ({"steps": 0}, "steps must be a whole number from 1 upwards"),
        ({"samples": -1}, "samples must be a whole number from 0 upwards"),
        ({"samples": 9, "batch_size": 8}, "batch_size must be a whole number from 9 upwards"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"score": "odds"}, 'score must be "logit" or "probability"'),
        ({"noise": -1.0}, "noise must be a positive number, got -1.0"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attack_explanation(built()["Sequential"], NOISE, 0, **{"epsilon": 0.1} | options)


def test_images_and_targets_are_checked():
    with pytest.raises(ValueError, match="the model takes images of shape"):
        attack_explanation(built()["Sequential"], NOISE[:, :5], 0, epsilon=0.1)
    with pytest.raises(ValueError, match="target 3 does not exist"):
        attack_explanation(built()["Sequential"], NOISE, 3, epsilon=0.1)


# Randomised layers.

TANK_LAYERS = ["conv_1", "conv_2", "conv_3", "dense", "tank"]


def weights_of(model):
    return {weight.path: weight.numpy() for weight in model.weights}


def changed(model, other):
    """The names of the layers whose weights differ."""
    pairs = zip(model.weights, other.weights, strict=True)
    differ = [one for one, two in pairs if not np.array_equal(one.numpy(), two.numpy())]
    return {weight.path.split("/")[-2] for weight in differ}


@pytest.mark.parametrize("count", range(1, 6))
def test_the_layers_from_the_top_down_change_and_the_others_do_not(count):
    model, images, _, _ = tanks()
    before, outputs = weights_of(model), model.predict(images, verbose=0)
    copy = randomize_layers(model, top=count)
    assert changed(model, copy) == set(TANK_LAYERS[-count:])
    by_name = randomize_layers(model, down_to=TANK_LAYERS[-count])
    assert changed(copy, by_name) == set()
    assert changed(copy, randomize_layers(model, top=count, seed=1)) == set(TANK_LAYERS[-count:])
    np.testing.assert_allclose(model.predict(images, verbose=0), outputs, atol=1e-6)
    for path, value in weights_of(model).items():
        np.testing.assert_array_equal(value, before[path])
    assert not {id(layer) for layer in model.layers} & {id(layer) for layer in copy.layers}


def test_one_layer_alone_gets_the_weights_that_it_has_in_the_cascade():
    model, _, _, _ = tanks()
    cascade = randomize_layers(model, top=5, seed=3)
    for name in TANK_LAYERS:
        alone = randomize_layers(model, only=name, seed=3)
        assert changed(model, alone) == {name}
        pairs = zip(alone.get_layer(name).weights, cascade.get_layer(name).weights, strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_weights_are_drawn_as_before_training():
    model = models.load_trained("speech")
    copy = randomize_layers(model, down_to="conv_1")
    for layer in copy.layers:
        if isinstance(layer, layers.BatchNormalization):
            gamma, beta, mean, variance = (weight.numpy() for weight in layer.weights)
            assert (gamma == 1).all()
            assert (variance == 1).all()
            assert (beta == 0).all()
            assert (mean == 0).all()
        elif layer.weights:
            kernel = layer.kernel.numpy()
            fan = np.prod(kernel.shape[:-2]) * (kernel.shape[-2] + kernel.shape[-1])
            limit = np.sqrt(6 / fan)  # Glorot and Bengio's
            assert np.abs(kernel).max() <= limit
            assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.15)
            assert layer.bias is None or (layer.bias.numpy() == 0).all()


def test_layers_of_the_same_shape_get_different_weights():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4)])
    low, high = (layer.kernel.numpy() for layer in randomize_layers(model, top=2).layers)
    assert (low != high).all()


def test_a_layer_whose_initializer_has_a_seed_changes_too():
    fixed = keras.initializers.RandomNormal(seed=5)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, kernel_initializer=fixed, bias_initializer=fixed),
        ]
    )
    copies = [randomize_layers(model, top=1, seed=seed) for seed in (0, 0, 1)]
    assert changed(copies[0], copies[1]) == set()
    for one, other in ((model, copies[0]), (model, copies[2]), (copies[0], copies[2])):
        for before, after in zip(one.weights, other.weights, strict=True):
            assert (before.numpy() != after.numpy()).all()


def nested():
    inner = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(2, 3, name="low"), layers.Conv2D(2, 3, name="high")],
        name="inner",
    )
    inputs = keras.Input((6, 6, 1))
    x = layers.SeparableConv2D(1, 1, name="first")(inputs)
    x = layers.Dropout(0.5, name="drop")(inner(x))
    return keras.Model(inputs, layers.Dense(2, name="last")(layers.Flatten()(x)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"only": "inner/low"}, {"low"}),
        ({"only": "inner"}, {"low", "high"}),
        ({"down_to": "high"}, {"high", "last"}),
        ({"down_to": "inner"}, {"low", "high", "last"}),
        ({"down_to": "drop"}, {"last"}),
        ({"top": 3}, {"low", "high", "last"}),
        ({"only": 1}, {"first"}),
    ],
)
def test_layers_of_nested_models_have_their_place(options, expected):
    model = nested()
    assert changed(model, randomize_layers(model, **options)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of top, down_to and only"),
        ({"top": 1, "only": "last"}, "give one of top, down_to and only"),
        ({"top": 0}, "top must be a whole number from 1 to 4"),
        ({"top": 5}, "top must be a whole number from 1 to 4"),
        ({"only": "middle"}, "no layer 'middle'. It has 0: "),
        ({"only": "drop"}, "'drop' has no weights to randomise. These do: first, low, high, last"),
        ({"top": 1, "seed": -1}, "seed must be a whole number"),
    ],
)
def test_what_cannot_be_randomised_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        randomize_layers(nested(), **options)


def test_a_copy_normalises_as_the_network_has_measured():
    measure = layers.Normalization()
    points = np.random.default_rng(0).normal(5, 3, (50, 4)).astype(np.float32)
    measure.adapt(points)
    first, last = layers.Dense(3, name="first"), layers.Dense(2, name="last")
    model = keras.Sequential([keras.Input((4,)), measure, first, last])
    copy = randomize_layers(model, only="last")
    assert changed(model, copy) == {"last"}
    before, after = (
        keras.Model(net.inputs, net.get_layer("first").output).predict(points, verbose=0)
        for net in (model, copy)
    )
    np.testing.assert_allclose(before, after, atol=1e-6)
    assert changed(model, randomize_layers(model, top=2)) == {"first", "last"}
    with pytest.raises(ValueError, match="from 1 to 2"):  # the other has measured, not learned
        randomize_layers(model, top=3)


def test_labels_of_which_several_may_hold_are_refused_and_one_is_attacked():
    keras.utils.set_random_seed(0)
    head = layers.Dense(6, activation="sigmoid")
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), head]
    )
    images = np.random.default_rng(0).random((2, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match="they are labels, not classes"):
        attack_explanation(model, images, 2, epsilon=0.1, steps=5)
    z = models.logit_model(model)
    label = keras.Model(z.inputs, keras.ops.sigmoid(z.outputs[0][:, 2:3]))
    attack = attack_explanation(label, images, 1, epsilon=0.1, steps=5, low=0, high=1)
    outputs = model.predict(np.concatenate([images, attack.images]), verbose=0)[:, 2]
    np.testing.assert_allclose(outputs, [*attack.before, *attack.after], atol=1e-5)


def test_a_network_that_cannot_be_copied_is_refused():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    model(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="cannot be copied"):
        randomize_layers(model, top=1)
