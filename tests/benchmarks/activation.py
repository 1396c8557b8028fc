"""How long activation maximisation takes, beside tf-keras-vis and the passes it consists of.

Needs 2 GB and about three minutes on two quiet cores:
python tests/benchmarks/activation.py [rounds]
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from _bench import compare, compare_table, publish, ratio
from tf_keras_vis.activation_maximization import ActivationMaximization
from tf_keras_vis.utils.scores import CategoricalScore

from course_utils import models
from course_utils._scores import logit_model
from course_utils.activation import maximize_activation

BARE, OURS, HELPED, PLAIN, LIBRARY = (
    "bare forward and backward passes",
    "`maximize_activation`",
    "`maximize_activation` with jitter, L2 and total variation",
    "tf-keras-vis, plain",
    "tf-keras-vis as it comes",
)

TEXT = """To search for an ideal input is to take the gradient of a score with respect to the \
image many times over. Side by side are *{bare}*, compiled, for a batch of the same size, called \
as many times; *{ours}*, whose loop is compiled as a whole, with nothing but a range, and *with \
jitter, L2 and total variation*; and *tf-keras-vis*, *plain*, which is without its regularisers \
and input modifiers and with a bare gradient step, and *as it comes*, with RMSprop, jitter, a \
rotation, total variation and a norm. All are run once before the clock starts.
"""


def measure(model, layer, count, steps, rounds):
    """Time the search for the first `count` channels of a layer, or classes where it is None."""
    output = model.get_layer(layer).output if layer else logit_model(model).outputs[0]
    part = keras.Model(model.inputs[0], output)
    ids = tf.range(count)

    @tf.function
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = part(images, training=False)
            outputs = tf.reduce_mean(outputs, tuple(range(1, len(outputs.shape) - 1)))
            scores = tf.gather(outputs, ids, batch_dims=1)
        return tape.gradient(scores, images)

    images = np.random.default_rng(0).normal(0.5, 0.1, (count, *model.input_shape[1:]))
    images = tf.constant(images, tf.float32)

    def bare():
        for _ in range(steps):
            gradient(images).numpy()

    wanted = {"layer": layer, "channel": range(count)} if layer else {"target": range(count)}
    wanted |= {"steps": steps, "low": 0.0, "high": 1.0, "batch_size": count}

    library = ActivationMaximization(part, clone=False)
    score = CategoricalScore(list(range(count)))
    same = {"seed_input": images, "input_range": (0.0, 1.0), "steps": steps}

    def plain():
        step = keras.optimizers.SGD(0.05)
        library(score, optimizer=step, regularizers=[], input_modifiers=[], **same)

    contenders = {
        BARE: bare,
        OURS: lambda: maximize_activation(model, **wanted),
        HELPED: lambda: maximize_activation(model, **wanted, jitter=4, l2=0.01, tv=0.01),
        PLAIN: plain,
        LIBRARY: lambda: library(score, **same),
    }
    return compare(contenders, rounds)


def main(rounds=7):
    """Measure three searches and write their section."""
    tank = models.load_trained("scenes_fair")
    cases = {
        "`scenes_cnn`, 64 pixels, one class, 200 steps": (tank, None, 1, 200, rounds),
        "`scenes_cnn`, all 32 channels of its second layer, 20 steps": (
            tank,
            "conv_2",
            32,
            20,
            rounds,
        ),
        "EfficientNet-Lite0, 224 pixels, four classes, 8 steps": (
            models.imagenet_classifier().model,
            None,
            4,
            8,
            max(rounds // 2, 1),
        ),
    }
    text, numbers = TEXT.format(bare=BARE, ours=OURS), {}
    for title, case in cases.items():
        timings = measure(*case)
        text += f"\n**{title}**, rounds: {case[-1]}\n\n{compare_table(timings, BARE)}\n"
        numbers[title] = {
            name: {clock: ratio(timing, timings[BARE], clock) for clock in ("seconds", "cpu")}
            for name, timing in timings.items()
        }
    publish("activation", "Activation maximisation", text.strip(), numbers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
