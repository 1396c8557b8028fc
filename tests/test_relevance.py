"""relevance: known answers by hand, the definition by slow loops, conservation, real networks."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

from course_utils import models
from course_utils._rules import some_below_0
from course_utils.gradients import gradient_times_input
from course_utils.relevance import COMPOSITES, RULES, relevance_map

CONSERVING = ("zero", "epsilon", "gamma", "z-plus", "alpha2-beta1", *COMPOSITES)


def three_units():
    """Two inputs, two ReLU units and a score: 2 relu(x1 - x2) + relu(x1 + x2)... of (3, 1): 8."""
    model = keras.Sequential(
        [
            keras.Input((1, 2, 1)),
            kl.Flatten(),
            kl.Dense(2, activation="relu", use_bias=False),
            kl.Dense(1, use_bias=False),
        ]
    )
    model.set_weights([np.array([[1.0, 1.0], [-1.0, 1.0]]), np.array([[2.0], [1.0]])])
    return model, np.array([3.0, 1.0], np.float32).reshape(1, 1, 2, 1)


@pytest.mark.parametrize(
    "twice",
    [
        lambda x: kl.Concatenate()([x, x, x]),
        lambda x: kl.Add()([x, x]),
        lambda x: x + x,
    ],
    ids=["grey as colours", "Add", "+"],
)
def test_a_tensor_that_is_taken_twice_has_its_relevance_once(twice):
    keras.utils.set_random_seed(0)
    images = keras.Input((6, 6, 1))
    x = kl.Conv2D(4, 3, activation="relu", use_bias=False)(twice(images))
    model = keras.Model(images, kl.Dense(2, use_bias=False)(kl.Flatten()(x)))
    some = np.random.default_rng(0).random((3, 6, 6, 1), np.float32)
    total = relevance_map(model, some, 1, rule="zero").sum(axis=(1, 2))
    np.testing.assert_allclose(total, model.predict(some, verbose=0)[:, 1], rtol=1e-4)


def every_kind(bias=False, seed=0):
    """A network of every kind of layer there is a rule for."""
    keras.utils.set_random_seed(seed)
    options = {"use_bias": bias, "padding": "same", "bias_initializer": "normal"}
    images = keras.Input((12, 12, 3))
    x = kl.Conv2D(8, 3, **options)(images)
    x = kl.BatchNormalization(center=bias)(x)
    x = kl.ReLU()(x)
    y = kl.SeparableConv2D(8, 3, depth_multiplier=2, **options)(x)
    y = kl.BatchNormalization(center=bias)(y)
    x = kl.MaxPooling2D()(kl.ReLU()(kl.Add()([x, y])))
    deep = kl.DepthwiseConv2D(3, dilation_rate=2, depth_multiplier=2, **options)(x)
    deep = kl.LeakyReLU()(kl.BatchNormalization(center=bias, scale=False)(deep))
    wide = kl.Conv2D(6, 3, strides=2, activation="relu", groups=2, **options)(x)
    wide = kl.Conv2DTranspose(6, 3, strides=2, activation="relu", **options)(wide)
    x = kl.Concatenate()([deep, kl.Dropout(0.5)(wide)])
    x = kl.AveragePooling2D(2, padding="same")(kl.ZeroPadding2D(1)(x))
    x = kl.Dense(10, activation="relu", use_bias=bias)(kl.Flatten()(x))
    model = keras.Model(images, kl.Dense(4, activation="softmax", use_bias=bias)(x))
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, kl.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
            if bias:
                layer.moving_mean.assign(rng.normal(0, 0.3, layer.moving_mean.shape))
    return model


def relu_network(bias=False):
    keras.utils.set_random_seed(1)
    options = {"activation": "relu", "use_bias": bias, "bias_initializer": "normal"}
    return keras.Sequential(
        [
            keras.Input((9, 9, 2)),
            kl.Conv2D(6, 3, **options),
            kl.MaxPooling2D(),
            kl.Conv2D(8, 2, **options),
            kl.Flatten(),
            kl.Dense(12, **options),
            kl.Dense(3, use_bias=bias),
        ]
    )


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# By hand.


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # The score is 2 * 2 + 1 * 4 = 8, so the units get 4 and 4. Of the first, 3 comes from x1
        # and -1 from x2; of the second, 3 and 1.
        ("zero", [4 * 3 / 2 + 4 * 3 / 4, -4 * 1 / 2 + 4 * 1 / 4]),
        ("epsilon", [4 * 3 / 2 + 4 * 3 / 4, -4 * 1 / 2 + 4 * 1 / 4]),
        ("z-plus", [4 + 4 * 3 / 4, 4 * 1 / 4]),
        ("alpha2-beta1", [2 * (4 + 3), 2 * 1 - 1 * 4]),  # nothing speaks against the rest
        # 1.25 times the positive weights: 3.75 - 1 of 2.75, and 3.75 + 1.25 of 5.
        ("gamma", [4 * 3.75 / 2.75 + 4 * 3.75 / 5, -4 * 1 / 2.75 + 4 * 1.25 / 5]),
    ],
)
def test_three_units_by_hand(rule, expected):
    model, images = three_units()
    expected = np.array(expected)
    if rule == "alpha2-beta1":  # at the score both units speak for it: they get twice their 4
        expected = np.array([2 * (2 * 4 + 2 * 3) - 0, 2 * 2 * 1 - 8])
    found = relevance_map(model, images, 1, rule=rule)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)


def test_class_0_of_a_single_score_has_the_opposite_relevance():
    model, images = three_units()
    pair = [relevance_map(model, images, target) for target in (0, 1)]
    np.testing.assert_allclose(pair[0], -pair[1])


def test_a_large_epsilon_takes_its_share_away():
    model, images = three_units()
    found = relevance_map(model, images, 1, rule="epsilon", epsilon=2.0)
    units = np.array([4, 4]) * 8 / (8 + 2)
    expected = np.array([3, -1]) * units[0] / (2 + 2) + np.array([3, 1]) * units[1] / (4 + 2)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)


def test_the_rule_for_pixels_by_hand():
    """A pixel's distance from low counts where its weight is positive, from high elsewhere."""
    model = keras.Sequential(
        [keras.Input((1, 2, 1)), kl.Conv2D(1, (1, 2), use_bias=False), kl.Flatten()]
    )
    model.set_weights([np.array([2.0, -1.0]).reshape(1, 2, 1, 1)])
    images = np.array([0.75, 0.5], np.float32).reshape(1, 1, 2, 1)
    found = relevance_map(model, images, 1, rule="epsilon-gamma-box", low=0.0, high=1.0)
    share = np.array([2 * 0.75, -1 * (0.5 - 1)])  # 1.5 and 0.5 of the score of 1
    np.testing.assert_allclose(found[0, 0], share / share.sum(), rtol=1e-5)
    # Pixels of the same picture on another scale, which a layer of the network undoes.
    scaled = keras.Sequential([keras.Input((1, 2, 1)), kl.Rescaling(-0.25, 1.0), model])
    again = relevance_map(
        scaled, (1 - images) / 0.25, 1, rule="epsilon-gamma-box", low=0.0, high=4.0
    )
    np.testing.assert_allclose(again, found, rtol=1e-5)


# Slow loops.


def slowly(rule, x, kernel, bias, relevance):
    """One Dense layer's rule as the papers write it, a connection at a time."""
    shares = np.zeros_like(x)
    for j in range(kernel.shape[1]):
        z = x * kernel[:, j]
        if rule == "zero":
            shares += z / (z.sum() + bias[j]) * relevance[j]
            continue
        up, down = z.clip(min=0), z.clip(max=0)
        for_it = up / (up.sum() + max(bias[j], 0) + 1e-6)
        against = down / (down.sum() + min(bias[j], 0) - 1e-6)
        if rule == "z-plus":
            shares += for_it * relevance[j]
        if rule == "alpha2-beta1":
            if down.sum() + min(bias[j], 0) == 0:
                against = 0 * down
            shares += (2 * for_it - against) * relevance[j]
        if rule == "gamma":  # the generalised one, for inputs of both signs
            part, b = (up, max(bias[j], 0)) if z.sum() + bias[j] > 0 else (down, min(bias[j], 0))
            every = z + 0.25 * part
            shares += every / (every.sum() + bias[j] + 0.25 * b) * relevance[j]
    return shares


@pytest.mark.parametrize("rule", ["zero", "z-plus", "alpha2-beta1", "gamma"])
def test_it_equals_a_loop_over_connections(rule):
    keras.utils.set_random_seed(3)
    dense = [
        kl.Dense(n, bias_initializer="normal", activation=a) for n, a in ((9, "tanh"), (4, None))
    ]
    model = keras.Sequential([keras.Input((3, 2, 2)), kl.Flatten(), *dense])
    images = noise((2, 3, 2, 2), 4)
    found = relevance_map(model, images, 2, rule=rule)
    for image, heatmap in zip(images.astype(np.float64), found, strict=True):
        x = image.ravel()
        (first, first_bias), (last, last_bias) = (layer.get_weights() for layer in dense)
        hidden = np.tanh(x @ first + first_bias)
        score = hidden @ last + last_bias
        behind = slowly(rule, hidden, last, last_bias, np.eye(4)[2] * score)
        expected = slowly(rule, x, first, first_bias, behind).reshape(3, 2, 2).sum(axis=2)
        np.testing.assert_allclose(heatmap, expected, atol=1e-5 * np.abs(expected).max())


# What the rules promise.


@pytest.mark.parametrize(
    ("below", "through"),
    [
        (False, tf.nn.relu),
        (False, lambda x: tf.nn.relu(x) + tf.nn.relu6(-x)),
        (False, lambda x: tf.pad(tf.nn.max_pool2d(tf.nn.relu(x), 2, 2, "SAME"), [[1, 1]] * 4)),
        (False, lambda x: tf.concat([tf.sigmoid(x), tf.reshape(tf.nn.relu(x), [2, 5, 5, 1])], -1)),
        (True, lambda x: tf.nn.relu(x) - 1),
        (True, lambda x: tf.nn.relu(x) + tf.nn.leaky_relu(x)),
        (True, lambda x: tf.pad(tf.nn.relu(x), [[1, 1]] * 4, constant_values=-1)),
        (None, lambda x: x),
        (None, lambda x: tf.nn.relu(x) + tf.nn.avg_pool2d(x, 1, 1, "SAME")),
    ],
)
def test_what_can_lie_below_0_is_known_from_where_it_comes(below, through):
    """None: only the images can tell."""
    told = []

    @tf.function(autograph=False)
    def look(x):
        y = through(x)
        some = some_below_0(y)
        told.append(None if tf.is_tensor(some) else some)
        return some, tf.reduce_any(y < 0)

    images = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 5, 1)).astype(np.float32))
    for sign in (images, tf.abs(images)):
        some, there = (bool(found) for found in look(sign))
        assert some or not there
        assert some == (there if below is None else below)
    assert told == [below]


@pytest.fixture
def eagerly():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize(
    ("rule", "second", "expected"),
    [
        ("z-plus", 1, [4 + 3, 1]),
        # Of (3, -1) the units make 4 and 2 and get 8 and 2. Of the first, 3 and 1 come from the
        # two, of the second 3 and -1: what lies below 0 counts where its weight does as well.
        ("z-plus", -1, [8 * 3 / 4 + 2, 8 * 1 / 4]),
        ("alpha2-beta1", -1, [2 * (16 * 3 / 4 + 4), 2 * 16 * 1 / 4 - 4]),
    ],
)
def test_where_functions_run_eagerly_the_numbers_say_whether_some_lie_below_0(
    rule, second, expected, eagerly
):
    model, images = three_units()
    images[0, 0, 1] = second
    found = relevance_map(model, images, 1, rule=rule)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("build", [every_kind, relu_network])
def test_zero_is_gradient_times_input_without_biases(build):
    model = build()
    images = noise((4, *model.input_shape[1:]))
    times = gradient_times_input(model, images, 1)
    found = relevance_map(model, images, 1, rule="zero")
    np.testing.assert_allclose(found, times, atol=1e-5 * np.abs(times).max())


@functools.cache
def from_each_layer():
    """A ReLU network from each of three layers on, what that layer gets, and the logit."""
    model = relu_network()
    images = np.abs(noise((3, 9, 9, 2)))
    parts = []
    for number in (0, 1, 2):
        rest = keras.Sequential([keras.Input(model.layers[number].input.shape[1:])])
        for layer in model.layers[number:]:
            rest.add(layer)
        front = keras.Model(model.inputs[0], model.layers[number].input)
        parts.append((rest, np.asarray(front(images)) if number else images))
    return parts, np.asarray(model(images))[:, 2]


@pytest.mark.parametrize("rule", CONSERVING)
def test_relevance_adds_up_to_the_logit_at_every_layer(rule):
    """Without biases and in ReLU networks; what each layer gets is the map of the rest."""
    parts, logit = from_each_layer()
    for rest, taken in parts:
        found = relevance_map(rest, taken, 2, rule=rule)
        np.testing.assert_allclose(found.sum(axis=(1, 2)), logit, rtol=1e-4)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_composite_of_z_plus_alone_is_z_plus_and_so_on(composite):
    """Of the rules by name, each where it belongs: in a network without Dense layers."""
    keras.utils.set_random_seed(0)
    options = {"use_bias": False, "activation": "relu"}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            kl.Conv2D(5, 3, **options),
            kl.Conv2D(3, 3, use_bias=False),
            kl.GlobalAveragePooling2D(),
        ]
    )
    images = noise((2, 8, 8, 2))
    rule = {"epsilon-plus": "z-plus", "epsilon-alpha2-beta1": "alpha2-beta1"}.get(composite)
    found = relevance_map(model, images, 0, rule=composite)
    assert np.isfinite(found).all()
    if rule:
        np.testing.assert_allclose(found, relevance_map(model, images, 0, rule=rule))
    else:  # the first layer has another rule
        other = relevance_map(model, images, 0, rule="gamma")
        assert np.abs(found - other).max() > 0.01 * np.abs(other).max()


@pytest.mark.parametrize("rule", ["epsilon", "epsilon-plus"])
def test_nested_models_give_what_flat_ones_give(rule):
    model = every_kind(bias=True)
    middle = next(layer for layer in model.layers if isinstance(layer, kl.Concatenate)).output
    front, rest = keras.Model(model.inputs[0], middle), keras.Model(middle, model.output)
    outer = keras.Sequential([keras.Input((12, 12, 3)), front, rest])
    images = noise((2, 12, 12, 3))
    flat = relevance_map(model, images, 3, rule=rule)
    nested = relevance_map(outer, images, 3, rule=rule)
    np.testing.assert_allclose(nested, flat, atol=1e-5 * np.abs(flat).max())


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_normalisation_becomes_part_of_the_layer_before(rule):
    keras.utils.set_random_seed(0)
    images, rng = keras.Input((7, 7, 2)), np.random.default_rng(0)
    conv, norm, dense = kl.Conv2D(4, 3), kl.BatchNormalization(), kl.Dense(3)
    model = keras.Model(images, dense(kl.Flatten()(kl.ReLU()(norm(conv(images))))))
    gamma, beta, mean, variance = rng.uniform(0.5, 2, (4, 4))
    norm.set_weights([gamma, beta, mean, variance])
    folded = kl.Conv2D(4, 3)
    other = keras.Model(images, dense(kl.Flatten()(kl.ReLU()(folded(images)))))
    scale = gamma / np.sqrt(variance + norm.epsilon)
    kernel, bias = conv.get_weights()
    folded.set_weights([kernel * scale, (bias - mean) * scale + beta])
    x = noise((2, 7, 7, 2))
    np.testing.assert_allclose(
        relevance_map(model, x, 1, rule=rule), relevance_map(other, x, 1, rule=rule), atol=1e-4
    )


def test_it_follows_the_weights_and_needs_no_softmax():
    model, images = relu_network(bias=True), noise((3, 9, 9, 2))
    before = relevance_map(model, images, [0, 1, 2])
    squashed = keras.Sequential([keras.Input((9, 9, 2)), *model.layers, kl.Softmax()])
    np.testing.assert_allclose(before, relevance_map(squashed, images, [0, 1, 2]), rtol=1e-5)
    np.testing.assert_allclose(
        before, relevance_map(model, images, [0, 1, 2], batch_size=2), atol=1e-5
    )
    dense = model.layers[-1]
    dense.set_weights([2 * weight for weight in dense.get_weights()])
    after = relevance_map(model, images, [0, 1, 2])
    np.testing.assert_allclose(after, 2 * before, rtol=1e-3, atol=1e-4 * np.abs(after).max())


def test_x_plus_y_is_an_addition():
    images = keras.Input((4, 4, 1))
    x = kl.Conv2D(2, 1, use_bias=False)(images)
    y = kl.Conv2D(2, 1, use_bias=False)(images)
    head = [kl.Flatten(), kl.Dense(2, use_bias=False)]

    def close(x):
        return keras.Model(images, head[1](head[0](x)))

    picture = noise((1, 4, 4, 1))
    written, layer = close(x + y), close(kl.Add()([x, y]))
    np.testing.assert_allclose(
        relevance_map(written, picture, 0), relevance_map(layer, picture, 0), rtol=1e-6
    )


# The networks of keras.applications.


@pytest.mark.slow
def test_vgg16_adds_up_as_its_biases_are_0():
    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=7)
    images = noise((2, 32, 32, 3))
    zero, times = (
        relevance_map(model, images, 5, rule="zero"),
        gradient_times_input(model, images, 5),
    )
    np.testing.assert_allclose(zero, times, atol=1e-4 * np.abs(times).max())
    logit = models.logit_model(model).predict(images, verbose=0)[:, 5]
    found = relevance_map(model, images, 5, rule="z-plus")
    np.testing.assert_allclose(found.sum(axis=(1, 2)), logit, rtol=0.02)  # small, and stabilised


@pytest.mark.slow
def test_resnet50_and_the_efficientnet_of_the_course():
    keras.utils.set_random_seed(0)
    resnet = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=7)
    efficient = models.imagenet_classifier().model
    for model, size in ((resnet, 32), (efficient, 224)):
        images = noise((1, size, size, 3))
        zero = relevance_map(model, images, 5, rule="zero")
        found = relevance_map(model, images, 5)
        assert np.isfinite(found).all()
        assert np.isfinite(zero).all()
        assert found.std() > 0


# What does not fit.


def with_layer(layer):
    images = keras.Input((6, 6, 2))
    return keras.Model(images, kl.Dense(2)(kl.Flatten()(layer(kl.Conv2D(3, 3)(images)))))


class Own(kl.Dense):
    def call(self, inputs):
        return super().call(inputs) ** 2


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (kl.LayerNormalization(name="ln"), "no rule for layer 'ln' .LayerNormalization."),
        (Own(3, name="own"), "no rule for layer 'own' .Own."),
        (kl.Softmax(name="soft"), "no rule for layer 'soft'"),
        (kl.Dense(3, activation="softmax", name="fused"), "activation of layer 'fused', softmax"),
        (kl.Activation(lambda x: x * x, name="square"), "activation of layer 'square'"),
        (lambda x: kl.Multiply(name="gate")([x, x]), "no rule for layer 'gate' .Multiply."),
        (lambda x: x * 2.0, "no rule for layer .* .Multiply."),
    ],
)
def test_a_layer_without_a_rule_is_named(layer, message):
    with pytest.raises(ValueError, match=message):
        relevance_map(with_layer(layer), noise((1, 6, 6, 2)), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "plus"}, "there is no rule 'plus'. There are 'zero', 'epsilon'"),
        ({"epsilon": -1}, "epsilon must be"),
        ({"gamma": "much"}, "gamma must be"),
        ({"batch_size": 0}, "batch_size"),
        ({"low": 0.0}, "beyond the box"),
        ({"high": np.zeros(4)}, "high must be a number, a colour"),
    ],
)
def test_it_says_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        relevance_map(relu_network(), noise((1, 9, 9, 2)), 0, **options)


@pytest.mark.parametrize("rule", ["epsilon-gamma-box", "epsilon-plus"])
def test_an_operation_that_has_no_rule_is_named_also_in_front_of_the_first_convolution(rule):
    inputs = keras.Input((4, 4, 1))
    x = kl.Conv2D(2, 3)((inputs - 3) / 255)
    model = keras.Model(inputs, kl.Dense(2)(kl.Flatten()(x)))
    with pytest.raises(ValueError, match=r"has no rule for layer '(subtract|true_divide)"):
        relevance_map(model, np.zeros((1, 4, 4, 1), np.float32), 1, rule=rule, low=0.0, high=1.0)
