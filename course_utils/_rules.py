"""How one layer of a network hands relevance back: the rules of layer-wise relevance propagation.

A linear layer computes z = sum of x * w + bias. Each rule shares out the relevance R of its
output among its inputs in proportion to some part of what they contributed.
"""

import functools
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import layers as kl

STABILIZER = 1e-6  # keeps denominators from 0 where a rule has no epsilon of its own, as in Zennit


class Rules(NamedTuple):
    """The rules of the layers with weights, and their numbers."""

    first: str  # of the first convolution
    convolution: str
    dense: str
    epsilon: float
    gamma: float
    at: int | None  # the id of the tensor that the first convolution puts out
    box: tuple | None  # the least and the greatest that it could take in


def through_weights(layer, x, norm, rule, rules):
    """What a layer with weights puts out before its activation, and the way back."""
    steps = [list(step) for step in _linear_steps(layer)]
    bias = _floats(layer.bias, 0.0)
    if norm is not None:
        scale = tf.math.rsqrt(_floats(norm.moving_variance) + norm.epsilon)
        scale *= _floats(norm.gamma, 1.0)
        bias = (bias - _floats(norm.moving_mean)) * scale + _floats(norm.beta, 0.0)
        steps[-1][1] *= tf.reshape(scale, steps[-1][2])
    if getattr(layer, "data_format", None) == "channels_first":
        bias = tf.reshape(bias, (-1, *[1] * (len(x.shape) - 2)))
    ways = []
    for number, (apply, kernel, _) in enumerate(steps):
        last = bias if number == len(steps) - 1 else 0.0
        if rule == "box":
            x, back = box_step(apply, x, kernel, last, *rules.box)
        else:
            x, back = linear_step(rule, apply, x, kernel, last, rules.epsilon, rules.gamma)
        ways.insert(0, back)
        rule = rules.dense if isinstance(layer, kl.Dense) else rules.convolution
    return x, lambda share: functools.reduce(lambda share, back: back(share), ways, share)


def stabilised(z, epsilon):
    """Z moved away from 0 by epsilon, zeros upwards."""
    return z + tf.where(z < 0, -epsilon, epsilon)


def ratio(relevance, z, epsilon):
    """The relevance per unit of z; nothing where z is 0 and no epsilon helps."""
    return tf.math.divide_no_nan(relevance, stabilised(z, epsilon) if epsilon else z)


def transposed(linear, x, relevance):
    """The gradient of a linear function at x, weighted with the relevance of its output."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        z = linear(x)  # only its gradient is used, so that TensorFlow leaves it out of the graph
    return tape.gradient(z, x, relevance)


def by_contribution(linear, x, bias, epsilon):
    """Every contribution counts: z, and the function from its relevance to that of x."""
    z = linear(x) + bias
    return z, lambda relevance: x * transposed(linear, x, ratio(relevance, z, epsilon))


# The operations whose outputs are never below 0, and those that are not if none of their inputs is.
_NEVER_BELOW_0 = {"Relu", "Relu6", "Sigmoid"}
_AS_THEIR_INPUTS = {"AddV2", "AvgPool", "ConcatV2", "MaxPool", "Mean", "Pad", "Reshape"}


def some_below_0(x):
    """Whether numbers of x lie below 0: a bool, or a tensor where only the images can tell."""
    if tf.executing_eagerly():  # where functions run eagerly: nothing tells what made x
        return tf.reduce_any(x < 0)
    if x.op.type in _NEVER_BELOW_0:
        return False
    if x.op.type in _AS_THEIR_INPUTS:
        found = [some_below_0(taken) for taken in x.op.inputs if taken.dtype == x.dtype]
        return tf.reduce_any(x < 0) if any(map(tf.is_tensor, found)) else any(found)
    # Behind a layer of weights there always are some. To ask takes longer to compile.
    return tf.reduce_any(x < 0) if x.op.type == "Placeholder" else True


def by_sign(apply, above, below, up, down, bias, some=True):
    """Contributions of one sign: those of `above` through `up`, and of `below` through `down`.

    `apply` is the linear function of an input and a kernel. With the positive and the negative
    part of the input, the positive part `up` and the negative part `down` of the kernel, all
    contributions are positive. Where nothing lies below 0, as `some` says, half of the work is
    left out.
    """

    def add(to, lower):
        if tf.is_tensor(some):
            return to + tf.cond(some, lower, lambda: tf.zeros_like(to))
        return to + lower() if some else to

    z = add(apply(above, up) + bias, lambda: apply(below, down))

    def back(share):
        def lower():
            return below * transposed(lambda x: apply(x, down), below, share)

        return add(above * transposed(lambda x: apply(x, up), above, share), lower)

    return z, back


def linear_step(rule, apply, x, kernel, bias, epsilon, gamma):
    """Run a linear layer by a rule: its output, and the function from its relevance to x's."""
    if rule in ("zero", "epsilon"):
        epsilon = epsilon if rule == "epsilon" else 0.0
        return by_contribution(lambda x: apply(x, kernel), x, bias, epsilon)
    above, below = tf.nn.relu(x), tf.minimum(x, 0)
    up, down = tf.nn.relu(kernel), tf.minimum(kernel, 0)
    bias_up, bias_down = tf.nn.relu(bias), tf.minimum(bias, 0)
    some = some_below_0(x)
    if rule == "z-plus":
        positive, back = by_sign(apply, above, below, up, down, bias_up, some)
        z = apply(x, kernel) + bias
        return z, lambda relevance: back(ratio(relevance, positive, STABILIZER))
    if rule == "alpha2-beta1":
        positive, back = by_sign(apply, above, below, up, down, bias_up, some)
        negative, back_down = by_sign(apply, above, below, down, up, bias_down, some)

        def share(relevance):
            for_it = back(ratio(relevance, positive, STABILIZER))
            return 2 * for_it - back_down(ratio(relevance, negative, STABILIZER))

        return positive + negative, share
    return gamma_step(apply, x, kernel, bias, gamma)


def gamma_step(apply, x, kernel, bias, gamma):
    """The gamma rule: an output above 0 favours what is positive, one below 0 what is negative.

    What has the sign s of z counts 1 + gamma times, so that a contribution c counts
    (1 + gamma / 2) c + s gamma / 2 |c|. Both sums are convolutions: two, not four.
    """
    plain, size = 1 + gamma / 2, gamma / 2

    def sizes(x):
        return apply(x, tf.abs(kernel))

    z = apply(x, kernel) + bias
    favoured = plain * z + size * tf.sign(z) * (sizes(tf.abs(x)) + tf.abs(bias))

    def back(relevance):
        share = ratio(relevance, favoured, STABILIZER)
        share = tf.where(z == 0, 0.0, share)
        own = transposed(lambda x: apply(x, kernel), x, plain * share)
        return x * own + tf.abs(x) * transposed(sizes, x, size * tf.sign(z) * share)

    return z, back


def box_step(apply, x, kernel, bias, low, high):
    """The rule for pixels, which lie between low and high: their distance from both counts."""
    up, down = tf.nn.relu(kernel), tf.minimum(kernel, 0)
    room, back = by_sign(apply, x - low, x - high, up, down, 0.0)
    z = apply(x, kernel) + bias
    return z, lambda relevance: back(ratio(relevance, room, STABILIZER))


def _linear_steps(layer):
    """What a layer does, in steps: a function of input and kernel, the kernel, a shape.

    Numbers for each output, of that shape, can be multiplied with the kernel.
    """
    if isinstance(layer, kl.Dense):
        return [(keras.ops.matmul, _floats(layer.kernel), (-1,))]
    options = {"padding": layer.padding, "data_format": layer.data_format}
    if isinstance(layer, (kl.DepthwiseConv2D, kl.SeparableConv2D)):
        separable = isinstance(layer, kl.SeparableConv2D)
        kernel = _floats(layer.depthwise_kernel if separable else layer.kernel)
        deep = {**options, "strides": layer.strides, "dilation_rate": layer.dilation_rate}

        def depthwise(x, kernel):
            return keras.ops.depthwise_conv(x, kernel, **deep)

        def pointwise(x, kernel):
            return keras.ops.conv(x, kernel, data_format=layer.data_format)

        steps = [(depthwise, kernel, tuple(kernel.shape[-2:]))]
        return steps + ([(pointwise, _floats(layer.pointwise_kernel), (-1,))] if separable else [])
    if isinstance(layer, kl.Conv2DTranspose):

        def spread(x, kernel):
            return keras.ops.conv_transpose(
                x,
                kernel,
                strides=layer.strides,
                output_padding=layer.output_padding,
                dilation_rate=layer.dilation_rate,
                **options,
            )

        return [(spread, _floats(layer.kernel), (-1, 1))]
    return [(layer.convolution_op, _floats(layer.kernel), (-1,))]


def _floats(variable, otherwise=None):
    """A layer's weights as a float32 tensor, or another number where it has none."""
    return otherwise if variable is None else tf.cast(tf.convert_to_tensor(variable), tf.float32)
