"""Occlusion that computes again only what a patch can change.

A patch changes a rectangle of the image and, behind each convolution or pooling, a slightly
larger rectangle of the feature maps. So the image runs through the network once and its feature
maps are kept. For a patch, each layer computes only a window around its rectangle; what it reads
beside the window of the layer before comes from the kept maps. Branches of the graph have windows
of their own, and where they meet, those that reach over all of them. Where a window has grown to
the whole map, or a layer is not local, the rest of the network runs as usual.

In each layer, all places of the patch share one size of window, the largest that any of them
needs, so that a batch of places is one tensor. Where such a window would stick out of the map it
is moved inwards: the surplus is computed again and comes out as it was.

Where a layer reads a pixel, from the window or beside it, depends on the place of the patch alone,
so it is tabulated when the pass is compiled; numpy does that, TensorFlow only looks up.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from course_utils._folded import folds, infer
from course_utils._local import Changed, local_step, normalised, of_places
from course_utils._plain import flattened, kept
from course_utils._shared import layer_calls

_MOST = 16  # sizes of images, patches and strides that a model is kept compiled for


def partial_pass(model, image_shape, patch, stride):
    """Return a function that occludes images, or None if `model` has to run as a whole.

    The function takes an image (H, W, C), a fill (H, W, C) and batches of `patch_places`, int
    (B, 2) each. It yields the model's outputs for the image, (1, K), then for each batch, (B, K).
    """

    def make():
        key = "flat", *image_shape
        flat = kept(model, key, lambda: flattened(model, image_shape), _MOST)
        steps = make_plan(flat, patch, stride)
        return _compile(flat, steps, stride) if steps else None

    return kept(model, ("partial", *image_shape, patch, stride), make, _MOST)


def make_plan(model, patch, stride):
    """Return the Steps of the local layers a model begins with, while they leave pixels alone.

    None if they save too little. `model` takes images of one size.
    """
    lengths = model.inputs[0].shape[1:3]
    changed = {id(model.inputs[0]): tuple(_patch_changes(n, patch, stride) for n in lengths)}
    steps = []
    for layer, inputs, outputs in layer_calls(model):
        before = [changed.get(id(tensor)) for tensor in inputs]
        step = None if None in before else local_step(layer, inputs, outputs, before)
        if step and any(axis.span < axis.length for axis in step.after):
            steps.append(step)
            changed[id(step.output)] = step.after
    return steps if multiplications(model, steps) < 0.9 * multiplications(model) else None


def _patch_changes(length, patch, stride):
    """What the patch changes of the image. One window serves all places: the fill, the whole."""
    first = np.arange(0, length - patch + stride, stride, dtype=np.int32)
    return Changed(first, np.minimum(first + patch, length), 0 * first, length, length)


def multiplications(model, steps=()):
    """How many multiplications the layers with kernels need, those of `steps` in their windows."""
    parts = {id(step.output): step.after for step in steps}
    total = 0
    for layer, inputs, outputs in layer_calls(model):
        names = ("kernel", "depthwise_kernel", "pointwise_kernel")
        kernels = [k for k in (getattr(layer, n, None) for n in names) if hasattr(k, "shape")]
        per_pixel = sum(np.prod(kernel.shape, dtype=float) for kernel in kernels)
        tensor = inputs[0] if isinstance(layer, keras.layers.Conv2DTranspose) else outputs[0]
        number = per_pixel * np.prod(tensor.shape[1:-1], dtype=float)
        for axis in parts.get(id(outputs[0]), ()):
            number *= axis.size / axis.length
        total += number
    return total


def _compile(model, steps, stride):
    """Return the function that `partial_pass` promises."""
    image_spec = tf.TensorSpec(model.inputs[0].shape[1:])
    place_spec = tf.TensorSpec([None, 2], tf.int32)
    ends = _ends(model, steps)
    read = [t for step in steps for t, reads in zip(step.inputs, step.reads, strict=True) if reads]
    tensors = list({id(tensor): tensor for tensor in [*read, *ends]}.values())
    names = [id(tensor) for tensor in tensors]
    maps_of = keras.Model(model.inputs[0], [model.outputs[0], *tensors])
    steps = _fold(model, steps)
    tail = keras.Model(ends, model.outputs[0])

    # Partials, or TensorFlow would take the functions of all models for one, and warn that it is
    # traced too often.
    run_once = tf.function(functools.partial(_run_once, maps_of), [image_spec], autograph=False)
    map_specs = [tf.TensorSpec(tensor.shape[1:]) for tensor in tensors]
    run_windows = tf.function(
        functools.partial(_run_windows, steps, stride, names, ends, tail),
        [image_spec, map_specs, place_spec],
        autograph=False,
    )

    def occlude(image, fill, batches):
        image, fill = tf.constant(image), tf.constant(fill)
        whole, *maps = run_once(image)
        yield whole.numpy()
        for places in batches:
            yield run_windows(fill, maps, tf.constant(places)).numpy()

    return occlude


def _fold(model, steps):
    """The steps, of which convolutions do what the batch normalisations behind them would."""
    known = {id(step.output): place for place, step in enumerate(steps)}
    steps, taken_in = list(steps), folds(model)
    for place, step in enumerate(steps):
        if id(step.output) in taken_in:
            before = known[id(step.inputs[0])]
            steps[before] = normalised(steps[before], step.layer)
            steps[place] = step._replace(run=lambda windows, places: windows[0])
    return steps


def _ends(model, steps):
    """The tensors that the steps hand on to the rest of the network."""
    known = {id(model.inputs[0])} | {id(step.output) for step in steps}
    done = {id(step.output) for step in steps}
    calls = [inputs for _, inputs, outputs in layer_calls(model) if id(outputs[0]) not in done]
    taken = [tensor for inputs in (*calls, model.outputs) for tensor in inputs]
    return list({id(tensor): tensor for tensor in taken if id(tensor) in known}.values())


def _run_once(maps_of, image):
    """The outputs of the model, (1, K), and the kept maps, (H, W, C) each."""
    whole, *maps = infer(maps_of, image[tf.newaxis])
    return [tf.cast(whole, tf.float32), *(kept_map[0] for kept_map in maps)]


def _run_windows(steps, stride, names, ends, tail, fill, maps, places):
    """The outputs of the model with each place covered, from the maps of `_run_once`."""
    places = tf.unstack(places // stride, axis=1)
    kept_maps = dict(zip(names, maps, strict=True))
    # At first all places share one window, the whole fill, of which the patch's pixels count.
    windows = {id(steps[0].inputs[0]): fill[tf.newaxis]}
    changed = {id(steps[0].inputs[0]): steps[0].before[0]}
    for step in steps:
        taken = []
        for tensor, axes, reads in zip(step.inputs, step.before, step.reads, strict=True):
            x = windows[id(tensor)]
            if reads is not None:
                x = _amid(x, kept_maps[id(tensor)], axes, reads, places, step.border)
            taken.append(x)
        windows[id(step.output)] = step.run(taken, places)
        changed[id(step.output)] = step.after
    whole = []
    for end in ends:
        axes = changed[id(end)]
        reads = [(0 * axis.first, axis.length) for axis in axes]
        whole.append(_amid(windows[id(end)], kept_maps[id(end)], axes, reads, places))
    return tf.cast(infer(tail, whole if whole[1:] else whole[0]), tf.float32)


_NOT = -(2**29)  # so low that row and column together stay below zero, and within 32 bits


def _amid(windows, kept_map, changed, reads, places, border=0.0):
    """Read rows and columns of a map (H, W, C), from the window (h, w, C) where that has changed.

    There is a window for each place, or one for all. They and the map become one table of pixels,
    so that one look-up does it. The first of the table is the border.
    """
    (height, width, channels), size = kept_map.shape, windows.shape[1:3]
    in_map, in_window, inside = [], [], True
    for axis, (begin, count), steps in zip(changed, reads, ((width, size[1]), (1, 1)), strict=True):
        pixels = begin[:, np.newaxis] + np.arange(count, dtype=np.int32)
        first, stop, start = (bound[:, np.newaxis] for bound in axis[:3])
        within = (pixels >= 0) & (pixels < axis.length)
        has_changed = (first <= pixels) & (pixels < stop)
        in_map.append(np.where(within, pixels * steps[0], _NOT))
        in_window.append(np.where(has_changed, (pixels - start) * steps[1], _NOT))
        inside &= within.all()
    index = of_places(*in_map, places)
    index = 1 + (index if inside else tf.maximum(index, -1))
    there = of_places(*in_window, places)
    begin = 1 + height * width + size[0] * size[1] * tf.range(tf.shape(windows)[0])
    index = tf.where(there < 0, index, there + begin[:, tf.newaxis, tf.newaxis])
    parts = [tf.fill([1, channels], border), kept_map, windows]
    table = tf.concat([tf.reshape(part, [-1, channels]) for part in parts], axis=0)
    return tf.gather(table, index)
