"""What a model says of images: the scores before its softmax, those of a target, in batches."""

import functools
import weakref

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from course_utils._folded import infer
from course_utils._plain import ChannelsLast, kept, plain
from course_utils._shared import calls_its_graph

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"course_utils explains with TensorFlow, and Keras runs on {keras.backend.backend()}: set "
        "the environment variable KERAS_BACKEND to tensorflow before Keras is imported."
    )


def logit_model(model):
    """Return the model whose output is the score before the final softmax or sigmoid of `model`.

    It has the inputs of `model` and shares its layers and weights, so training one trains the
    other; `model` itself stays as it is. The softmax or sigmoid may be fused into the last Dense
    or convolution or be a layer of its own, in Sequential and Functional models and in models
    whose last layer is such a model, at any depth. Explanations look at these scores because a
    saturated softmax has next to no gradient, and because a class's probability can also rise
    by the fall of others (Simonyan, Vedaldi and Zisserman, Deep Inside Convolutional Networks,
    2014, section 2).

    Parameters
    ----------
    model : keras.Model
        With one output, (N, K) or (N, 1).

    Returns
    -------
    keras.Model
        Scores of the same shape: softmax (or sigmoid) of them gives the output of `model`.
        A model that does not end in a softmax or sigmoid gives scores already and is returned
        as it is. Asking again for the same model returns the same object.

    Raises
    ------
    ValueError
        If the final activation cannot be seen or looked through: a model that is not built, has
        several outputs or no graph of layers, a Lambda or custom layer at the end, a softmax
        that is followed by another layer or is not over the last axis.
    """
    output = _only_output(model)
    return kept(model, "logits", lambda: _logits(model, output)) or model


def _logits(model, output):
    """The logit model, or None if it is `model` itself: a table must not hold its own key."""
    scores = _before_activation(output)
    if scores is output:
        return None
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.Model(inputs, scores, name=f"{model.name}_logits")


_REMEDY = (
    "Build the model without its final activation, so that it gives scores, or explain the "
    'output as it is with score="probability".'
)


def _only_output(model):
    """The symbolic output of `model`, or a ValueError that says why it has none or several."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"logit_model takes a keras.Model, got {type(model).__name__}.")
    outputs = getattr(model, "outputs", None)
    if not outputs or not calls_its_graph(model):
        raise ValueError(
            f"{model.name} has no graph of layers to look into. If it is Sequential, give it an "
            "Input layer or call it once on a batch; if it is a subclass of keras.Model, build it "
            f"with the Functional API. {_REMEDY}"
        )
    if len(outputs) > 1:
        raise ValueError(
            f"{model.name} has {len(outputs)} outputs, logit_model takes one. "
            "Choose it with keras.Model(model.inputs, model.outputs[0])."
        )
    return outputs[0]


def _before_activation(output):
    """The tensor before the softmax or sigmoid that gives `output`, or `output` if none does."""
    layer, call, _ = output._keras_history
    arguments = layer._inbound_nodes[call].arguments
    if isinstance(layer, keras.Model):
        logits = logit_model(layer)
        return output if logits is layer else logits(*arguments.args, **arguments.kwargs)
    if type(layer).__name__ == "Cast":  # keras.ops.cast, say of a softmax in half precision
        scores = _before_activation(arguments.keras_tensors[0])
        return output if scores is arguments.keras_tensors[0] else layer(scores)
    if isinstance(layer, ChannelsLast):
        layer = layer.layer
    function = _final_function(layer)
    name = getattr(function, "__name__", type(function).__name__).lower()
    if name not in {"softmax", "softmax_v2", "sigmoid"}:  # tf.nn.softmax is called softmax_v2
        if not getattr(layer, "weights", []):
            _check_not_buried(layer, arguments.keras_tensors)
        return output
    axis = getattr(function, "axis", -1)
    if axis not in (-1, len(output.shape) - 1):
        raise ValueError(
            f"the softmax of {layer.name!r} is over axis {axis}, not over the classes, the last "
            f"axis of {output.shape}. {_REMEDY}"
        )
    fused = function is not layer and not isinstance(layer, layers.Activation)
    return _Scores(layer)(arguments.args[0]) if fused else arguments.keras_tensors[0]


def _final_function(layer):
    """What a layer does last: its activation, or the layer (or operation) itself."""
    opaque = (layers.Lambda, layers.Wrapper, layers.TFSMLayer)
    function = vars(layer).get("activation") or layer
    if isinstance(layer, _Scores):
        return layer
    # Of a layer's kind it is the method that tells: a Dense of one's own may call as Keras's does.
    kind = type(layer).call.__module__ or ""
    if not kind.startswith(("keras", "tensorflow")) or isinstance(layer, opaque):
        what = type(layer).__name__
    elif not _is_known(function) and not _is_no_squash(function):
        what = getattr(function, "__name__", type(function).__name__)
    else:
        return function
    raise ValueError(
        f"logit_model cannot see whether {layer.name!r} ends in a softmax or sigmoid, "
        f"because {what} is not one of Keras's plain layers or activations. {_REMEDY}"
    )


def _is_known(function):
    return (function.__module__ or "").startswith(("keras", "tensorflow"))


def _is_no_squash(function):
    """Whether an activation of one's own leaves 0..1, so that it is no softmax or sigmoid.

    A guided ReLU, say, is a ReLU whose gradient is another. It is a function of the numbers it
    gets, so that numbers tell.
    """
    numbers = np.random.default_rng(0).normal(scale=4, size=(8, 5)).astype(np.float32)
    try:
        squashed = np.asarray(function(keras.ops.convert_to_tensor(numbers)))
    except Exception:  # whatever the function's own code raises
        return False
    return bool((squashed < 0).any() or (squashed > 1).any())


def _check_not_buried(layer, sources):
    """Raise ValueError if a layer without weights is fed by a softmax or sigmoid."""
    for source in sources:
        if _before_activation(source) is not source:
            inner = source._keras_history.operation.name
            raise ValueError(
                f"the softmax or sigmoid of {inner!r} is followed by {layer.name!r}, which "
                f"logit_model cannot look through. {_REMEDY}"
            )


class _Scores(layers.Layer):
    """A Dense or convolution without its activation; the weights remain the layer's own."""

    def __init__(self, layer):
        plain = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
        channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
        if not isinstance(layer, plain) or not channels_last or layer.quantization_mode:
            raise ValueError(
                f"logit_model cannot take the activation off {layer.name!r}: it can for a Dense "
                f"or a convolution with channels last that is not quantised. {_REMEDY}"
            )
        super().__init__(name=f"{layer.name}_logits", dtype=layer.dtype_policy)
        self.layer = layer

    def call(self, inputs):
        if isinstance(self.layer, layers.Dense):
            scores = keras.ops.matmul(inputs, self.layer.kernel)
        else:
            scores = self.layer.convolution_op(inputs, self.layer.kernel)
        return scores if self.layer.bias is None else keras.ops.add(scores, self.layer.bias)


def score_model(model, score):
    """Return the model that gives the scores to explain: its logits, or its output as it is.

    The output is a probability where `model` ends in a softmax or sigmoid. The model returned takes
    float images (N, H, W, C), whatever `model` takes, and gives one tensor.
    """
    if score == "logit":
        return logit_model(plain(model))
    if score == "probability":
        return plain(model)
    raise ValueError(f'score must be "logit" or "probability", got {score!r}.')


def of_target(outputs, targets, score):
    """Pick each row's score of its target, (N,), from outputs (N, K), or (N, 1) with a sigmoid.

    With one output, class 1 has that score, and class 0 what is opposite to it: the negative
    logit, or one minus the probability.
    """
    if outputs.shape[-1] > 1:
        return outputs[np.arange(len(outputs)), targets]
    flipped = -outputs[:, 0] if score == "logit" else 1 - outputs[:, 0]
    return np.where(targets == 1, outputs[:, 0], flipped)


def forward(model):
    """Return the compiled forward pass of `model`, for any number of images; compiled once.

    `model` is as `score_model` or `plain` returns it; the outputs, one or several, are float32.
    """
    # A weak reference, or what is kept of a model would keep it for ever; a partial, or TensorFlow
    # would take the functions of all models for one, and warn that it is traced too often.
    run = functools.partial(_run, weakref.ref(model))
    return kept(model, "forward", lambda: tf.function(run, [images_spec(model)], autograph=False))


def images_spec(model):
    """What TensorFlow is told of the images that `model` takes."""
    return tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)


def _run(model, images):
    # Outputs in half or double precision are for the model's own use.
    outputs = infer(model(), images)
    return tf.nest.map_structure(lambda output: tf.cast(output, tf.float32), outputs)


def pick(outputs, targets):
    """Pick each row's score of its target, (N,), within TensorFlow, where `score_model` made it.

    As `of_target`, except that the probability of class 0 of a single output lacks its constant,
    1: it has the right gradient and not the right value.
    """
    if outputs.shape[-1] > 1:
        return of_columns(outputs, targets)
    return tf.where(targets == 1, outputs[:, 0], -outputs[:, 0])


def of_columns(table, columns):
    """Each row's value (N,) in its column (N,) of a table (N, K), within TensorFlow."""
    # tf.gather with batch_dims gives the same, and its gradient takes three times as long to trace.
    rows = tf.range(tf.shape(columns)[0], dtype=columns.dtype)
    return tf.gather_nd(table, tf.stack([rows, columns], axis=1))


def gradient(model):
    """Return the compiled function (images, targets) -> gradient of each target's score.

    Images (N, H, W, C) and int64 targets (N,) to gradients (N, H, W, C), for any N; compiled
    once. `model` gives the scores, as `score_model` returns it. ValueError where no gradient
    leads from a score to the images.
    """
    run = functools.partial(_run_gradient, weakref.ref(model))
    specs = [images_spec(model), tf.TensorSpec((None,), tf.int64)]
    # Without autograph, which Keras models do without, errors come as they were raised.
    return kept(model, "gradient", lambda: tf.function(run, specs, autograph=False))


def _run_gradient(model, images, targets):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        scores = pick(_run(model, images), targets)
    return reached(tape.gradient(scores, images))


def reached(slope):
    """Return a gradient with respect to the images, or say why there is none."""
    if slope is None:
        raise ValueError(
            "no gradient leads from the score back to the images: on the way numbers are rounded, "
            "cast to integers or looked up. Explain the part behind that, or use occlusion or LIME."
        )
    return slope


def predict(model, images, batch_size):
    """Return the outputs of `model` for images (N, H, W, C), a batch at a time, as numpy."""
    run = forward(model)
    batches = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
    return np.concatenate([run(tf.constant(batch)).numpy() for batch in batches])
