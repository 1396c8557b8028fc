"""relevance_map gives what Zennit gives, by the composites of the same names on the same weights.

Zennit needs torch, which the course does not: both live in an environment of their own, which
`make test-peers` makes and runs this with.
"""

import json
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

from course_utils.relevance import relevance_map

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "peers" / "bin" / "python"
COMPOSITES = ("epsilon-plus", "epsilon-gamma-box", "epsilon-alpha2-beta1")

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="make test-peers makes what it needs")


def conv(filters=None, size=3, stride=1, dilation=1, depthwise=False, bias=True):
    """A convolution that keeps the size of the map, but for its stride."""
    options = {"filters": filters, "size": size, "stride": stride, "dilation": dilation}
    padding = dilation * (size - 1) // 2
    return ["conv", {**options, "depthwise": depthwise, "bias": bias, "padding": padding}]


def dense(units):
    return ["dense", {"units": units}]


def plus(*inner):
    return ["plus", {"layers": list(inner)}]


RELU, NORM, MAX, AVERAGE, MEAN, FLATTEN = (
    [kind, {}] for kind in ("relu", "norm", "max", "average", "mean", "flatten")
)
PLAIN = [conv(8), RELU, MAX, conv(12), RELU, MAX, FLATTEN, dense(20), RELU, dense(5)]
NORMED = [
    *(conv(8, stride=2, bias=False), NORM, RELU),
    *(conv(depthwise=True, bias=False), NORM, RELU),
    *(conv(16, size=1), NORM, RELU),
    *(conv(16, dilation=2), RELU, AVERAGE, conv(10), RELU, MEAN, FLATTEN, dense(5)),
]
# What is added is not negative here, and has both signs in the next. There the libraries differ by
# 6e-4 with alpha2-beta1. It may be rounding, where terms cancel; that has not been shown.
RESIDUAL = [
    *(conv(8), NORM, RELU),
    plus(conv(8), NORM, RELU, conv(8), NORM, RELU),
    plus(conv(24, size=1), RELU, conv(depthwise=True), RELU, conv(8, size=1), NORM, RELU),
    *(conv(16, stride=2), RELU, MEAN, FLATTEN, dense(5)),
]
CANCELLING = [
    *(conv(8), NORM, RELU),
    plus(conv(8), NORM, RELU, conv(8), NORM),
    RELU,
    plus(conv(24, size=1), RELU, conv(depthwise=True), RELU, conv(8, size=1), NORM),
    *(conv(16, stride=2), RELU, MEAN, FLATTEN, dense(5)),
]
VGG = [
    layer
    for repeats, filters in ((2, 16), (2, 32), (3, 64), (3, 64), (3, 64))
    for layer in [*[conv(filters), RELU] * repeats, MAX]
] + [FLATTEN, dense(64), RELU, dense(64), RELU, dense(5)]


def through(x, layers):
    """Call Keras's layers on x, one after the other."""
    for kind, options in layers:
        if kind == "plus":
            x = kl.Add()([x, through(x, options["layers"])])
        elif kind == "conv":
            x = kl.ZeroPadding2D(options["padding"])(x) if options["padding"] else x
            shared = {"use_bias": options["bias"], "bias_initializer": "normal"}
            shape = {"strides": options["stride"], "dilation_rate": options["dilation"]}
            if options["depthwise"]:
                made = kl.DepthwiseConv2D(options["size"], **shape, **shared)
            else:
                start = {"kernel_initializer": "he_normal"}
                made = kl.Conv2D(options["filters"], options["size"], **shape, **shared, **start)
            x = made(x)
        elif kind == "dense":
            x = kl.Dense(options["units"], bias_initializer="normal")(x)
        else:
            simple = {
                "relu": kl.ReLU,
                "norm": kl.BatchNormalization,
                "max": kl.MaxPooling2D,
                "average": lambda: kl.AveragePooling2D(2),
                "mean": kl.GlobalAveragePooling2D,
                "flatten": kl.Flatten,
            }
            x = simple[kind]()(x)
    return x


def network(layers):
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 32, 3))
    model = keras.Model(images, through(images, layers))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, kl.BatchNormalization):
            size = layer.gamma.shape
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, size),
                    rng.normal(0, 0.2, size),
                    rng.normal(0, 0.3, size),
                    rng.uniform(0.5, 2, size),
                ]
            )
    return model


@pytest.mark.parametrize(
    ("layers", "apart"),
    [(PLAIN, 1e-4), (NORMED, 1e-4), (RESIDUAL, 1e-4), (CANCELLING, 1e-3), (VGG, 1e-4)],
    ids=["plain", "normed", "residual", "cancelling", "vgg"],
)
def test_it_equals_zennit(layers, apart, tmp_path):
    model = network(layers)
    images = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    weights = [w for layer in model.layers for w in layer.get_weights()]
    named = {f"weight_{i}": weight for i, weight in enumerate(weights)}
    asked, answered = tmp_path / "asked.npz", tmp_path / "answered.npz"
    box = {"low": -1.0, "high": 1.0}
    np.savez(asked, layers=json.dumps(layers), images=images, target=2, **box, **named)
    worker = Path(__file__).with_name("_with_zennit.py")
    subprocess.run([PYTHON, worker, asked, answered], check=True)
    theirs = np.load(answered)
    np.testing.assert_allclose(model.predict(images, verbose=0), theirs["logits"], atol=1e-4)
    for composite in COMPOSITES:
        ours = relevance_map(model, images, 2, rule=composite, **box)
        largest = np.abs(theirs[composite]).max()
        np.testing.assert_allclose(ours, theirs[composite], atol=apart * largest)
