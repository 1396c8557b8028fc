"""Layer-wise relevance propagation: hand the score back, layer by layer, to the pixels."""

import functools
import weakref

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from course_utils._arrays import check_whole
from course_utils._plain import TO_FIRST, TO_LAST, ChannelsLast, kept
from course_utils._rules import STABILIZER, Rules, by_contribution, ratio, through_weights
from course_utils._scores import _Scores, images_spec, pick, score_model
from course_utils._shared import check_fill, check_images, check_targets, layer_calls

RULES = ("zero", "epsilon", "gamma", "z-plus", "alpha2-beta1")
# From a composite to the rules of its first convolution, its others, and its Dense layers.
COMPOSITES = {
    "epsilon-plus": ("z-plus", "z-plus", "epsilon"),
    "epsilon-gamma-box": ("box", "gamma", "epsilon"),
    "epsilon-alpha2-beta1": ("alpha2-beta1", "alpha2-beta1", "epsilon"),
}


def relevance_map(
    model,
    images,
    targets,
    *,
    rule="epsilon-plus",
    epsilon=1e-6,
    gamma=0.25,
    low=None,
    high=None,
    batch_size=16,
):
    """Return how much of the target's logit each pixel gets when every layer shares out its part.

    The relevance of the target's logit is that logit itself. Layer by layer each unit hands its
    relevance to the units it is computed from, in proportion to what they contribute; which
    contributions count is the rule.

    Parameters
    ----------
    model : keras.Model
        Of convolutions (plain, depthwise, separable, transposed), Dense layers, poolings, batch
        normalisations, additions, concatenations, paddings, flattening, dropout and activations,
        in Sequential, Functional and nested models.
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class to explain, for all images or for each.
    rule : str
        One rule for all layers with weights: "zero" (LRP-0: each contribution counts), "epsilon"
        (the same, with a little taken away where contributions cancel), "gamma" (those of the
        unit's own sign count more), "z-plus" (only positive ones count) or "alpha2-beta1"
        (positive ones count twice, negative ones once and against). Or a composite: "epsilon-plus"
        (z-plus for convolutions, epsilon for Dense layers), "epsilon-alpha2-beta1", or
        "epsilon-gamma-box" (gamma for convolutions but the first, which gets the rule for pixels
        that lie in a box).
    epsilon : float
        Of the epsilon rule, added to the size of every denominator.
    gamma : float
        Of the gamma rule: how much more those of the unit's own sign count.
    low, high : float, array (C,) or array (H, W, C), optional
        The box of "epsilon-gamma-box": the least and the greatest that a pixel could be. If not
        given, the least and the greatest value of each image.
    batch_size : int
        Images that are in memory at a time, with all that every layer makes of them.

    Returns
    -------
    float32 (N, H, W)
        Signed, and summed over channels. Where no bias takes a share, a map adds up to the logit
        if each unit has contributions of the signs that its rule asks for. By "z-plus" a unit
        without a positive one hands on nothing; by "alpha2-beta1" one without a negative hands on
        twice its relevance, and one without a positive the opposite of it; by "gamma" one that is
        exactly 0 hands on nothing; a large epsilon keeps a part.

    Raises
    ------
    ValueError
        If an argument does not fit, or the model has a layer without a rule: it is named.

    Notes
    -----
    Rules and composites are those of Zennit, of the same names: activations pass relevance on as
    it is; a batch normalisation behind a layer with weights becomes part of it, and another passes
    relevance on; average pooling and addition share out by contribution, stabilised; max-pooling
    gives everything to the largest. In a network of ReLUs the rule "zero" gives gradient times
    input. Maps equal Zennit's to 1e-4 of the largest value; in a network with no ReLU before an
    addition, where what is added may nearly cancel, by "epsilon-alpha2-beta1" to 1e-3.

    References
    ----------
    Bach et al., On Pixel-wise Explanations for Non-Linear Classifier Decisions by Layer-wise
    Relevance Propagation (2015); Montavon et al., Layer-Wise Relevance Propagation: An Overview
    (2019); Anders et al., Software for Dataset-wide XAI: From Local Explanations to Global Insights
    with Zennit, CoRelAy, and ViRelAy (2021).
    """
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    check_whole("batch_size", batch_size, 1)
    if rule not in RULES and rule not in COMPOSITES:
        known = ", ".join(repr(name) for name in (*RULES, *COMPOSITES))
        raise ValueError(f"there is no rule {rule!r}. There are {known}.")
    for name, value in (("epsilon", epsilon), ("gamma", gamma)):
        if not np.isscalar(value) or isinstance(value, str) or not 0 <= value < np.inf:
            raise ValueError(f"{name} must be zero or a positive number, got {value!r}.")
    box = _box(model, images, low, high)
    run = _compiled(score_model(model, "logit"), (rule, float(epsilon), float(gamma)))
    heatmaps = np.empty(images.shape[:3], np.float32)
    for start in range(0, len(images), batch_size):
        some = slice(start, start + batch_size)
        arguments = (images[some], targets[some], *(edge[some] for edge in box))
        heatmaps[some] = run(*map(tf.constant, arguments)).numpy()
    return heatmaps


def _box(model, images, low, high):
    """The least and the greatest that each pixel could be, float32, to broadcast over images."""
    edges = []
    for name, edge, extreme in (("low", low, np.min), ("high", high, np.max)):
        if edge is None:
            edges.append(extreme(images, axis=(1, 2, 3), keepdims=True))
        else:
            edge = check_fill(edge, images.shape[1:], name, model)
            edges.append(np.broadcast_to(edge, (len(images), *edge.shape)))
    if (images < edges[0]).any() or (images > edges[1]).any():
        raise ValueError(
            f"images reach from {images.min():.4g} to {images.max():.4g}, beyond the box from low "
            "to high. Pass the least and the greatest value that a pixel could have."
        )
    return edges


def _compiled(model, settings):
    edge = tf.TensorSpec((None, None, None, None), tf.float32)
    specs = [images_spec(model), tf.TensorSpec((None,), tf.int64), edge, edge]
    run = functools.partial(_run, weakref.ref(model), settings)
    # Without autograph, which Keras models do without, errors come as they were raised.
    make = functools.partial(tf.function, run, specs, autograph=False)
    return kept(model, ("relevance", settings), make)


def _run(model, settings, images, targets, low, high):
    rule, epsilon, gamma = settings
    rules = Rules(*COMPOSITES.get(rule, (rule, rule, rule)), epsilon, gamma, None, None)
    if rules.first == "box":
        fronts = [_front(model(), [edge + tf.zeros_like(images)]) for edge in (low, high)]
        if fronts[0] is not None:
            (low, at), (high, _) = fronts
            rules = rules._replace(at=at, box=(tf.minimum(low, high), tf.maximum(low, high)))
    (outputs,), back = _through_model(model(), [images], rules)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(outputs)
        scores = pick(outputs, targets)
    (relevance,) = back([outputs * tape.gradient(scores, outputs)])
    return tf.reduce_sum(relevance, axis=-1)


_CONVOLUTIONS = (
    kl.Conv1D,
    kl.Conv2D,
    kl.Conv2DTranspose,
    kl.DepthwiseConv2D,
    kl.SeparableConv2D,
)
_BY_CONTRIBUTION = (kl.AveragePooling2D, kl.GlobalAveragePooling2D)
# What puts its inputs elsewhere, copies or drops them: relevance goes back the same ways.
_MOVES = (
    kl.Concatenate,
    kl.Cropping2D,
    kl.Flatten,
    kl.GlobalMaxPooling2D,
    kl.MaxPooling2D,
    kl.Permute,
    kl.Reshape,
    kl.UpSampling2D,
    kl.ZeroPadding2D,
)
# What gives each number another value on its own: relevance stays where it is.
_STAYS = (
    kl.Activation,
    kl.ActivityRegularization,
    kl.BatchNormalization,
    kl.Dropout,
    kl.ELU,
    kl.GaussianDropout,
    kl.GaussianNoise,
    kl.Identity,
    kl.LeakyReLU,
    kl.Normalization,
    kl.PReLU,
    kl.ReLU,
    kl.Rescaling,
    kl.SpatialDropout2D,
)
_POINTWISE = {
    *("celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh"),
    *("leaky_relu", "linear", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus"),
    *("softsign", "squareplus", "swish", "tanh"),
}


def _is(layer, kinds):
    """Whether a layer is one of these kinds and calls as they do."""
    return "call" not in vars(layer) and any(
        isinstance(layer, kind) and type(layer).call is kind.call for kind in kinds
    )


def _is_operation(layer, name):
    """Whether a step of the graph is Keras's operation of that name, as x + y makes one."""
    module = type(layer).__module__
    return type(layer).__name__ == name and module.startswith("keras.src.ops")


def _through_model(model, inputs, rules):
    """Run a model: its outputs, and the function from their relevance to that of the inputs."""
    values = dict(zip(map(id, model.inputs), inputs, strict=True))
    merged, ways = _merged(model), []
    for layer, taken, made in layer_calls(model):
        if id(made[0]) in values:
            continue  # a batch normalisation that has become part of the layer before
        norm, ends = merged.get(id(made[0]), (None, made))
        arguments = [values[id(tensor)] for tensor in taken]
        place = id(made[0]) == rules.at
        outputs, back = _through_layer(layer, arguments, norm, rules, place)
        values |= zip(map(id, ends), outputs, strict=True)
        ways.append((taken, ends, back))

    def backwards(relevances):
        found = dict(zip(map(id, model.outputs), relevances, strict=True))
        for taken, ends, back in reversed(ways):
            behind = [found.pop(id(end), None) for end in ends]
            behind = [
                tf.zeros_like(values[id(end)]) if share is None else share
                for end, share in zip(ends, behind, strict=True)
            ]
            for tensor, share in zip(taken, back(behind), strict=True):
                found[id(tensor)] = found.get(id(tensor), 0) + share
        return [found[id(tensor)] for tensor in model.inputs]

    return [values[id(tensor)] for tensor in model.outputs], backwards


def _merged(model):
    """From the outputs of layers with weights to the batch normalisation that alone takes them."""
    calls = layer_calls(model)
    takers = [id(tensor) for _, taken, _ in calls for tensor in taken]
    takers += [id(tensor) for tensor in model.outputs]
    linear = {
        id(made[0])
        for layer, _, made in calls
        if _is(layer, (*_CONVOLUTIONS, kl.Dense)) and _is_linear(layer.activation)
    }
    return {
        id(taken[0]): (layer, made)
        for layer, taken, made in calls
        if _is(layer, (kl.BatchNormalization,))
        and id(taken[0]) in linear
        and takers.count(id(taken[0])) == 1
        and layer.axis in (-1, len(taken[0].shape) - 1)
    }


def _is_linear(activation):
    return activation is None or getattr(activation, "__name__", "") == "linear"


def _front(model, inputs):
    """What the first convolution takes in, and the id of what it puts out; None if none does."""
    values = dict(zip(map(id, model.inputs), inputs, strict=True))
    for layer, taken, made in layer_calls(model):
        arguments = [values[id(tensor)] for tensor in taken]
        if _is(layer, _CONVOLUTIONS):
            return arguments[0], id(made[0])
        if isinstance(layer, ChannelsLast) and _is(layer.layer, _CONVOLUTIONS):
            return tf.transpose(arguments[0], TO_LAST), id(made[0])
        if isinstance(layer, keras.Model):
            found = _front(layer, arguments)
            if found is not None:
                return found
        node = layer._inbound_nodes[made[0]._keras_history.node_index]
        given, keywords = node.arguments.fill_in(values)
        called = layer(*given, **keywords)
        values |= zip(map(id, made), keras.tree.flatten(called), strict=True)
    return None


def _through_layer(layer, inputs, norm, rules, first):
    """Run a layer: its outputs, and the function from their relevance to that of the inputs."""
    if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
        return _through_model(layer, inputs, rules)
    if isinstance(layer, ChannelsLast):
        return _through_turned(layer, inputs[0], norm, rules, first)
    activation = getattr(layer, "activation", None)
    layer = layer.layer if isinstance(layer, _Scores) else layer
    if _is(layer, (*_CONVOLUTIONS, kl.Dense)) and not getattr(layer, "quantization_mode", None):
        _check_pointwise(layer, activation)
        rule = (
            rules.dense if _is(layer, (kl.Dense,)) else rules.first if first else rules.convolution
        )
        z, back = through_weights(layer, inputs[0], norm, rule, rules)
        return [z if activation is None else activation(z)], lambda shares: [back(shares[0])]
    if _is(layer, (kl.Add,)) or (_is_operation(layer, "Add") and inputs[1:]):
        return _add(layer, inputs, rules)
    if _is(layer, _BY_CONTRIBUTION):
        epsilon = 0.0 if rules.dense == "zero" else STABILIZER
        z, back = by_contribution(lambda x: _float32(layer(x)), inputs[0], 0.0, epsilon)
        return [z], lambda shares: [back(shares[0])]
    if _is(layer, _MOVES) or _is_operation(layer, "Transpose"):
        return _move(layer, inputs)
    if _is(layer, _STAYS) or _is_operation(layer, "Cast"):
        _check_pointwise(layer, activation)
        keywords = {"training": False} if isinstance(layer, keras.Layer) else {}
        return [_float32(layer(inputs[0], **keywords))], lambda shares: shares
    raise ValueError(
        f"relevance_map has no rule for layer {layer.name!r} ({type(layer).__name__}). It has them "
        "for convolutions, Dense layers, poolings, batch normalisation, additions, concatenations, "
        "paddings, flattening, dropout and pointwise activations. Build the model of those, or "
        "explain it by gradients.integrated_gradients, which works for all layers."
    )


def _through_turned(layer, maps, norm, rules, first):
    """Run a layer that has its channels first, with the channels last."""
    with layer.turned() as inner:
        maps = tf.transpose(maps, TO_LAST)
        outputs, back = _through_layer(inner, [maps], norm, rules, first)

    def backwards(shares):
        with layer.turned():
            (share,) = back([tf.transpose(shares[0], TO_LAST)])
        return [tf.transpose(share, TO_FIRST)]

    return [tf.transpose(outputs[0], TO_FIRST)], backwards


def _add(layer, inputs, rules):
    """Add up, and share out by what was added."""
    epsilon = 0.0 if rules.dense == "zero" else STABILIZER
    inputs = _each_by_itself(inputs)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        total = _float32(layer(inputs) if isinstance(layer, keras.Layer) else layer(*inputs))

    def back(shares):
        slopes = tape.gradient(total, inputs, ratio(shares[0], total, epsilon))
        return [x * slope for x, slope in zip(inputs, slopes, strict=True)]

    return [total], back


def _move(layer, inputs):
    """Move numbers, and their relevance the same way back."""
    inputs = _each_by_itself(inputs)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        moved = _float32(layer(inputs if inputs[1:] else inputs[0]))
    return [moved], lambda shares: tape.gradient(moved, inputs, shares[0])


def _each_by_itself(inputs):
    """The inputs as so many tensors: one that comes twice would get the whole slope twice."""
    return [tf.identity(x) for x in inputs]


def _float32(tensor):
    """What a layer of any precision puts out, in that of the rules."""
    return tf.cast(tensor, tf.float32)


def _check_pointwise(layer, activation):
    """Raise ValueError unless an activation gives each number another on its own."""
    name = getattr(activation, "__name__", "")
    homes = (keras.activations, keras.ops, tf.nn, tf)
    known = name in _POINTWISE and any(getattr(home, name, None) is activation for home in homes)
    if activation is None or known or _is(activation, _STAYS):
        return
    what = name or type(activation).__name__
    raise ValueError(
        f"relevance_map has no rule for the activation of layer {layer.name!r}, {what}: it cannot "
        "tell that it looks at each number on its own. Take one of Keras's, such as relu, or "
        "explain the model by gradients.integrated_gradients."
    )
