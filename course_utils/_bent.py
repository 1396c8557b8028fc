"""ReLUs whose gradients have gradients, which an attack on a gradient has to follow."""

import functools
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf


@contextmanager
def bent(model):
    """Let the gradients of `model`'s ReLUs have gradients meanwhile; all else stays as it is.

    What they put out and its gradient do not change, so that the attack is on the network itself.
    """
    changed = []
    for part in parts(model):
        activation = vars(part).get("activation")
        if activation is not None and (found := bends(activation)):
            changed.append((part, "activation", activation))
            part.activation = functools.partial(bent_relu, activation, found)
        elif found := bends(part):
            changed.append((part, "call", None))
            part.call = functools.partial(bent_relu, part.call, found)
    try:
        yield
    finally:
        for part, name, function in changed:
            if name == "call":
                del part.call
            else:
                part.activation = function


def parts(model):
    """The layers and operations of a model, those of nested models in their models' places."""
    for part in getattr(model, "operations", model.layers):
        if isinstance(part, keras.Model):
            yield from parts(part)
        else:
            yield part


def bends(function):
    """(slope below, threshold, largest value) of a ReLU, be it a function or a layer; or None."""
    kind = getattr(function, "__name__", type(function).__name__).lower().replace("_", "")
    if kind not in ("relu", "relu6", "leakyrelu"):
        return None
    slope = getattr(function, "negative_slope", 0.2 if kind == "leakyrelu" else 0.0)
    most = getattr(function, "max_value", 6.0 if kind == "relu6" else None)
    return slope, getattr(function, "threshold", 0.0), np.inf if most is None else most


# The slope of the sigmoid in place of a step, in units of one over the spread of a layer's inputs.
# From 3 to 30 the attacks succeed about equally.
SHARPNESS = 10.0


def bent_relu(relu, numbers, inputs):
    """A ReLU whose gradient, a step, has the gradient of a sigmoid."""
    slope, threshold, most = numbers
    steps = tf.where(inputs > threshold, tf.ones([], inputs.dtype), slope)
    steps = tf.where(inputs < most, steps, 0.0) if np.isfinite(most) else steps

    @tf.custom_gradient
    def bent(x):
        return relu(x), lambda upstream: through(upstream, x)

    # Written out, gradients take a third of the operations that TensorFlow would record.
    @tf.custom_gradient
    def through(upstream, x):
        return upstream * steps, lambda seen: (seen * steps, _bump(numbers, x, seen * upstream))

    return bent(inputs)


def _bump(numbers, x, seen):
    """What comes back to `x` through the slopes of a ReLU: their gradient is a sigmoid's."""
    slope, threshold, most = numbers
    spread = tf.math.reduce_std(tf.cast(x, tf.float32), list(range(1, len(x.shape))), True)
    width = tf.cast(spread / SHARPNESS + 1e-7, x.dtype)  # never zero, in half precision neither

    def bump(place):
        return tf.raw_ops.SigmoidGrad(y=tf.sigmoid((x - place) / width), dy=seen)

    bumps = (1 - slope) * bump(threshold)
    return (bumps - bump(most) if np.isfinite(most) else bumps) / width
