"""What a layer puts out while a network runs, at any depth, and the gradient with respect to it."""

import functools
import weakref
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from course_utils._folded import infer
from course_utils._plain import CHANGING, convolves_channels_first, kept, plain
from course_utils._scores import images_spec, pick, score_model
from course_utils._shared import find_layer, maps_first


@contextmanager
def watch(layer, tape):
    """Let the tape watch whatever the layer puts out meanwhile, however deep it is nested.

    A nested model's layers are not part of the outer model's graph, so no model can be built that
    ends at one of them; to listen at the layer itself works wherever it is called from.
    """
    with CHANGING:
        watched, call, own = [], layer.call, vars(layer).get("call")

        def listen(*arguments, **keywords):
            output = call(*arguments, **keywords)
            tape.watch(output)
            watched.append(output)
            return output

        layer.call = listen
        try:
            yield watched
        finally:
            del layer.call
            if own is not None:  # someone else listens, too
                layer.call = own


def outputs_of(model, images, layer, batch_size):
    """What a layer puts out for images (N, H, W, C), float32 (N, ...), channels last."""
    run = _compiled(model, plain(model), layer, slope=False)
    zeros = np.zeros(len(images), np.int64)
    return _in_batches(run, images, zeros, batch_size)


def slopes_of(model, images, targets, layer, score, batch_size):
    """The gradient of each target's score with respect to what a layer puts out, as that."""
    run = _compiled(model, score_model(model, score), layer, slope=True)
    return _in_batches(run, images, targets, batch_size)


def _in_batches(run, images, targets, batch_size):
    some = (slice(i, i + batch_size) for i in range(0, len(images), batch_size))
    parts = [run(tf.constant(images[s]), tf.constant(targets[s])).numpy() for s in some]
    return np.concatenate(parts)


def _compiled(model, scored, layer, slope):
    """The compiled function (images, targets) -> what the layer puts out, or its gradient."""
    layer = find_layer(model, layer)
    first = maps_first(model, layer) and not convolves_channels_first(layer)
    specs = [images_spec(scored), tf.TensorSpec((None,), tf.int64)]
    run = functools.partial(_run, weakref.ref(scored), weakref.ref(layer), first, slope)
    # Without autograph, which Keras models do without, errors come as they were raised.
    make = functools.partial(tf.function, run, specs, autograph=False)
    return kept(scored, ("inside", id(layer), slope), make)


def _run(model, layer, first, slope, images, targets):
    with tf.GradientTape(watch_accessed_variables=False) as tape, watch(layer(), tape) as watched:
        outputs = infer(model(), images)
        scores = pick(tf.cast(outputs, tf.float32), targets) if slope else None
    if not watched or not isinstance(watched[-1], tf.Tensor):
        raise ValueError(
            f"layer {layer().name!r} is not called when {model().name!r} runs, or puts out "
            "several tensors. Name another layer."
        )
    found = tape.gradient(scores, watched[-1]) if slope else watched[-1]
    if found is None:
        raise ValueError(
            f"no gradient leads from the score back to layer {layer().name!r}. Name another layer."
        )
    found = tf.cast(found, tf.float32)
    return tf.transpose(found, (0, 2, 3, 1)) if first and len(found.shape) == 4 else found
