"""What a model says of images: the scores before its softmax, those of a target, in batches."""

import functools
import weakref

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def logit_model(model):
    """Return the model whose output is the score before the final softmax or sigmoid of `model`.

    It has the inputs of `model` and shares its layers and weights, so training one trains the
    other; `model` itself stays as it is. The softmax or sigmoid may be fused into the last Dense
    or convolution or be a layer of its own, in Sequential and Functional models and in models
    whose last layer is such a model, at any depth. Explanations look at these scores because a
    saturated softmax has next to no gradient and mixes the classes (Simonyan, Vedaldi and
    Zisserman, Deep Inside Convolutional Networks, 2014, section 3).

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
    kept_output, kept = _LOGIT_MODELS.get(model, (None, None))
    if kept_output is output:
        return kept
    scores = _before_activation(output)
    if scores is output:
        return model
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    logits = keras.Model(inputs, scores, name=f"{model.name}_logits")
    _LOGIT_MODELS[model] = (output, logits)
    return logits


# From a model to its output and its logit model. The output tells whether the model has had
# layers added or taken away since.
_LOGIT_MODELS = weakref.WeakKeyDictionary()

_REMEDY = (
    "Build the model without its final activation, so that it gives scores, or explain the "
    'output as it is with score="probability".'
)


def _only_output(model):
    """The symbolic output of `model`, or a ValueError that says why it has none or several."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"logit_model takes a keras.Model, got {type(model).__name__}.")
    outputs = getattr(model, "outputs", None)
    if not outputs:
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
    for part in (layer, function):
        known = (part.__module__ or "").startswith(("keras", "tensorflow"))
        if not known or isinstance(part, opaque):
            what = getattr(part, "__name__", type(part).__name__)
            raise ValueError(
                f"logit_model cannot see whether {layer.name!r} ends in a softmax or sigmoid, "
                f"because {what} is not one of Keras's plain layers or activations. {_REMEDY}"
            )
    return function


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
    """Return the model that gives the scores to explain: its logits, or its probabilities."""
    if score == "logit":
        return logit_model(model)
    if score == "probability":
        return model
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


# From a model to its output and its compiled forward pass. The output tells whether the model
# has had layers added or taken away since.
_FORWARD = weakref.WeakKeyDictionary()


def forward(model):
    """Return the compiled forward pass of `model`, for any number of images; compiled once."""
    output, compiled = _FORWARD.get(model, (None, None))
    if output is not model.outputs[0]:
        shape = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        # A weak reference, or the table would keep the model for ever; a partial, or TensorFlow
        # would take the functions of all models for one, and warn that it is traced too often.
        run = functools.partial(_run, weakref.ref(model))
        compiled = tf.function(run, input_signature=[shape])
        _FORWARD[model] = (model.outputs[0], compiled)
    return compiled


def _run(model, images):
    return model()(images, training=False)


def pick(outputs, targets):
    """Pick each row's score of its target, (N,), within TensorFlow, where `score_model` made it.

    As `of_target`, except that the probability of class 0 of a single output lacks its constant,
    1: it has the right gradient and not the right value.
    """
    if outputs.shape[-1] > 1:
        return tf.gather(outputs, targets, batch_dims=1)
    return tf.where(targets == 1, outputs[:, 0], -outputs[:, 0])


# As _FORWARD, for the compiled gradient.
_GRADIENT = weakref.WeakKeyDictionary()


def gradient(model):
    """Return the compiled function (images, targets) -> gradient of each target's score.

    Images (N, H, W, C) and int64 targets (N,) to gradients (N, H, W, C), for any N; compiled
    once. `model` gives the scores, as `score_model` returns it.
    """
    output, compiled = _GRADIENT.get(model, (None, None))
    if output is not model.outputs[0]:
        shapes = [
            tf.TensorSpec((None, *model.input_shape[1:]), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ]
        run = functools.partial(_run_gradient, weakref.ref(model))
        compiled = tf.function(run, input_signature=shapes)
        _GRADIENT[model] = (model.outputs[0], compiled)
    return compiled


def _run_gradient(model, images, targets):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        scores = pick(model()(images, training=False), targets)
    return tape.gradient(scores, images, unconnected_gradients="zero")


def predict(model, images, batch_size):
    """Return the outputs of `model` for images (N, H, W, C), a batch at a time, as numpy."""
    run = forward(model)
    batches = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
    return np.concatenate([run(tf.constant(batch)).numpy() for batch in batches])
