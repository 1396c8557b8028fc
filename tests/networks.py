"""Random networks from a grammar, each with what it computes in plain TensorFlow.

`random_network(seed)` returns a network as a user might have built it: strided, dilated, depthwise
and separable convolutions, poolings, residual and nested parts, operations in the graph, channels
first, images of integers, half precision. Beside it stands its reference, the same function
written down a second time, in double precision and without Keras, from the weights alone.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


class Network(NamedTuple):
    """A network, images for it, and its reference."""

    model: keras.Model
    images: np.ndarray
    """As the model takes them, float32; whole numbers if it takes integers."""
    last: np.ndarray
    """The same images with their channels last, (N, H, W, C)."""
    parts: list
    """Of the reference: functions from float64 (N, ...) to float64, one after the other; the last
    gives the scores before the softmax or sigmoid."""
    maps: dict
    """From the name of a layer to how many of the parts give its feature maps."""
    precise: bool
    """Whether the model computes in at least single precision."""
    words: str
    """What the grammar chose."""

    def scores(self, images, begin=0, stop=None):
        """The logits (N, K) of the reference, from images or from what `begin` parts make."""
        x = tf.cast(images, tf.float64)
        for part in self.parts[begin:stop]:
            x = part(x)
        return x

    def probabilities(self, images):
        """The probabilities (N, K), or (N, 1) with a sigmoid."""
        scores = self.scores(images)
        return tf.sigmoid(scores) if scores.shape[-1] == 1 else tf.nn.softmax(scores)


class _Builder:
    """What the grammar's rules share: the dice, the options of all layers, and what is made."""

    def __init__(self, rng, first, dtype):
        self.rng, self.first = rng, first
        self.options = {"dtype": dtype}
        self.placed = {"data_format": "channels_first" if first else "channels_last"}
        self.placed |= self.options
        self.axis = 1 if first else -1
        self.words, self.count = [], 0

    def name(self, kind):
        self.count += 1
        self.words.append(kind)
        return f"my_{kind}_{self.count}"  # Keras itself calls an operation add_3

    def weight(self, layer, attribute):
        """A weight of a layer as float64, when it is asked for: after it has been set."""
        return lambda: tf.cast(getattr(layer, attribute).value, tf.float64)


def random_network(seed):
    """Return the Network that a seed decides."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    first = bool(rng.random() < 0.2)
    dtype = rng.choice(["float32"] * 7 + ["float64", "mixed_float16", "mixed_bfloat16"])
    build = _Builder(rng, first, str(dtype))
    height, width, channels = (int(n) for n in (rng.integers(11, 17), rng.integers(11, 17), 0))
    channels = int(rng.choice([1, 3]))
    shape = (channels, height, width) if first else (height, width, channels)
    taken = str(rng.choice(["float32"] * 3 + ["uint8", "int32"]))
    inputs = keras.Input(shape, dtype=taken, name="images")
    x, parts, maps = inputs, [], {}
    x, part = _scaling(build, x, taken)
    parts.append(part)
    for _ in range(int(rng.integers(2, 5))):
        rule = _RULES[int(rng.integers(len(_RULES)))]
        x, part, named = rule(build, x)
        parts.append(part)
        if named is not None:
            maps[named] = len(parts)
    if not maps:
        x, part, named = _convolution(build, x)
        parts.append(part)
        maps[named] = len(parts)
    outputs, part = _head(build, x)
    parts.append(part)
    model = keras.Model(inputs, outputs, name=f"network_{seed}")
    _randomise(model, rng)
    last = rng.integers(0, 256, (2, height, width, channels)).astype(np.float32)
    images = np.moveaxis(last, -1, 1) if first else last
    words = " ".join(["channels first" * first, taken, str(dtype), *build.words])
    return Network(model, images, last, parts, maps, "16" not in dtype, words)


def _randomise(model, rng):
    """Random biases, means and variances, too, which Keras begins with zeros and ones."""
    for weight in model.weights:
        value = weight.numpy().astype(np.float64)
        if "variance" in weight.path or "gamma" in weight.path:
            value = rng.uniform(0.5, 1.5, value.shape)
        elif value.ndim == 1:
            value = rng.normal(scale=0.2, size=value.shape)
        weight.assign(value)


def _scaling(build, x, taken):
    """Images of 0..255 to about -1..1, by an operation, a layer, or both."""
    kind = build.rng.integers(3)
    build.words.append(("operation in front", "Rescaling", "cast and operations")[kind])
    if kind == 1:
        return layers.Rescaling(1 / 127.5, -1, **build.options)(x), lambda x: x / 127.5 - 1
    if kind == 2 or taken != "float32":
        x = ops.cast(x, "float32")
    x = x / 127.5 - 1
    return x, lambda x: x / 127.5 - 1


def _nonlinear(build, x):
    """An activation of its own, as a layer or as an operation."""
    kind = build.rng.integers(4)
    if kind == 0:
        return layers.ReLU(name=build.name("relu"), **build.options)(x), tf.nn.relu
    if kind == 1:
        layer = layers.LeakyReLU(0.1, name=build.name("leaky"), **build.options)
        return layer(x), lambda x: tf.nn.leaky_relu(x, 0.1)
    if kind == 2:
        build.words.append("ops.tanh")
        return ops.tanh(x), tf.tanh
    return layers.Activation("elu", name=build.name("elu"), **build.options)(x), tf.nn.elu


def _then(*functions):
    """One function after the other."""

    def all_of_them(x):
        for function in functions:
            x = function(x)
        return x

    return all_of_them


def _size(build, x):
    return min(x.shape[2:4] if build.first else x.shape[1:3])


_ACTIVATIONS = {None: lambda x: x, "relu": tf.nn.relu, "softplus": tf.math.softplus}


def _chosen(build, x):
    """A kernel, strides, a dilation and a padding that a map is large enough for."""
    rng = build.rng
    kernel = tuple(int(n) for n in rng.integers(1, 4, 2))
    strides, dilation = int(rng.choice([1, 1, 2])), 1
    if strides == 1 and _size(build, x) >= 6:
        dilation = int(rng.choice([1, 1, 2]))
    padding = "valid" if rng.random() < 0.5 and _size(build, x) >= 6 else "same"
    return kernel, strides, dilation, padding


def _convolution(build, x, filters=None, same=False, linear=False):
    kernel, strides, dilation, padding = _chosen(build, x)
    if same:
        strides, padding = 1, "same"
    activation = None if linear else [None, "relu", "softplus"][int(build.rng.integers(3))]
    layer = layers.Conv2D(
        filters or int(build.rng.integers(2, 6)),
        kernel,
        strides,
        padding,
        dilation_rate=dilation,
        activation=activation,
        use_bias=bool(build.rng.random() < 0.8),
        name=build.name("conv"),
        **build.placed,
    )
    made = layer(x)
    kernel_of, act = build.weight(layer, "kernel"), _ACTIVATIONS[activation]

    def part(x):
        x = tf.nn.conv2d(x, _spread(kernel_of(), dilation), strides, padding.upper())
        return act(x if layer.bias is None else x + tf.cast(layer.bias.value, tf.float64))

    return made, part, layer.name


def _spread(kernel, dilation):
    """A kernel with the zeros that dilation puts between its weights."""
    for axis in (0, 1):
        parts = tf.unstack(kernel, axis=axis)
        zeros = [tf.zeros_like(parts[0])] * (dilation - 1)
        spread = [part for weights in parts for part in (*zeros, weights)]
        kernel = tf.stack(spread[dilation - 1 :], axis=axis)
    return kernel


def _depthwise(build, x, linear=False):
    kernel, strides, dilation, padding = _chosen(build, x)
    layer = layers.DepthwiseConv2D(
        kernel,
        strides,
        padding,
        depth_multiplier=int(build.rng.integers(1, 3)),
        dilation_rate=dilation,
        activation=None if linear else "relu",
        name=build.name("depthwise"),
        **build.placed,
    )
    made = layer(x)
    kernel_of, bias_of = build.weight(layer, "kernel"), build.weight(layer, "bias")

    def part(x):
        x = _by_channel(x, kernel_of(), strides, padding, dilation) + bias_of()
        return x if linear else tf.nn.relu(x)

    return made, part, layer.name


def _by_channel(x, kernel, strides, padding, dilation):
    """A depthwise convolution, as the plain one that it is for each channel."""
    options = {"strides": strides, "padding": padding.upper()}
    kernel, channels = _spread(kernel, dilation), range(x.shape[-1])
    maps = [tf.nn.conv2d(x[..., c : c + 1], kernel[:, :, c : c + 1], **options) for c in channels]
    return tf.concat(maps, axis=-1)


def _separable(build, x):
    kernel, _, _, padding = _chosen(build, x)
    layer = layers.SeparableConv2D(
        int(build.rng.integers(2, 6)),
        kernel,
        padding=padding,
        activation="relu",
        name=build.name("separable"),
        **build.placed,
    )
    made = layer(x)
    depthwise, pointwise = (build.weight(layer, f"{w}_kernel") for w in ("depthwise", "pointwise"))
    bias_of = build.weight(layer, "bias")

    def part(x):
        x = _by_channel(x, depthwise(), 1, padding, 1)
        return tf.nn.relu(tf.nn.conv2d(x, pointwise(), 1, "VALID") + bias_of())

    return made, part, layer.name


def _pooling(build, x):
    kind = "MAX" if build.rng.random() < 0.5 else "AVG"
    size = int(build.rng.integers(2, 4))
    if _size(build, x) < 4:
        size = 1
    strides = int(build.rng.choice([1, 2]))
    padding = str(build.rng.choice(["valid", "same"]))
    layer = (layers.MaxPooling2D if kind == "MAX" else layers.AveragePooling2D)(
        size, strides, padding, name=build.name("pool"), **build.placed
    )
    pool = tf.nn.max_pool2d if kind == "MAX" else tf.nn.avg_pool2d
    return layer(x), lambda x: pool(x, size, strides, padding.upper()), None


def _normalisation(build, x):
    layer = layers.BatchNormalization(build.axis, name=build.name("norm"), **build.options)
    made = layer(x)
    names = ("moving_mean", "moving_variance", "gamma", "beta")
    weights = [build.weight(layer, name) for name in names]
    act, part = _nonlinear(build, made)

    def normalise(x):
        mean, variance, gamma, beta = (weight() for weight in weights)
        return (x - mean) / tf.sqrt(variance + layer.epsilon) * gamma + beta

    return act, _then(normalise, part), None


def _block(build, x):
    """A convolution without an activation, and a normalisation of what it puts out."""
    build.words.append("block")
    convolve = _convolution if build.rng.random() < 0.5 else _depthwise
    made, part, _ = convolve(build, x, linear=True)
    made, then, _ = _normalisation(build, made)
    return made, _then(part, then), None


def _residual(build, x):
    """What a convolution adds to its input, by a layer or by an operation."""
    channels = x.shape[build.axis]
    added, part, _ = _convolution(build, x, channels, same=True)
    if build.rng.random() < 0.5:
        build.words.append("+")
        return x + added, lambda x: x + part(x), None
    name = build.name("add")
    return layers.Add(name=name, **build.options)([x, added]), lambda x: x + part(x), name


def _nested(build, x):
    """A convolution and an activation in a model of their own, perhaps with a normalisation."""
    inner = keras.Input(x.shape[1:], dtype=x.dtype)
    made, part, _ = (_convolution if build.rng.random() < 0.5 else _block)(build, inner)
    made, act = _nonlinear(build, made)
    model = keras.Model(inner, made, name=build.name("nested"))
    return model(x), _then(part, act), None


def _dropout(build, x):
    layer = layers.Dropout(0.3, name=build.name("dropout"), **build.options)
    made, part = _nonlinear(build, layer(x))
    return made, part, None


_RULES = (
    *(_convolution, _convolution, _depthwise, _separable, _pooling, _normalisation),
    *(_block, _block, _residual, _residual, _nested, _nested, _dropout),
)


def _head(build, x):
    """Maps to classes: by the mean, the maximum or all of them; the softmax in some place."""
    rng, options = build.rng, build.options
    kind = ("mean", "maximum", "flat")[int(rng.integers(3))]
    build.words.append(kind)
    layer, pool = {
        "mean": (layers.GlobalAveragePooling2D, lambda x: tf.reduce_mean(x, [1, 2])),
        "maximum": (layers.GlobalMaxPooling2D, lambda x: tf.reduce_max(x, [1, 2])),
        "flat": (layers.Flatten, lambda x: tf.reshape(x, [len(x), -1])),
    }[kind]
    x = layer(name=f"pool_{kind}", **build.placed)(x)
    units = int(rng.choice([1, 3, 4]))
    squash, place = "sigmoid" if units == 1 else "softmax", int(rng.integers(4))
    build.words.append(f"{squash} {('fused', 'layer', 'operation', 'in float32')[place]}")
    dense = layers.Dense(units, squash if place == 0 else None, name="scores", **options)
    x = dense(x)
    if place == 1:
        x = layers.Activation(squash, **options)(x)
    elif place == 2:
        x = getattr(ops, squash)(x)
    elif place == 3:
        x = layers.Activation(squash, dtype="float32")(x)
    kernel, bias = build.weight(dense, "kernel"), build.weight(dense, "bias")
    return x, lambda x: pool(x) @ kernel() + bias()
