"""The original keras-vis 0.4.1, unmodified, in a process of its own.

keras-vis, which document 003 uses, was written for the Keras of 2018 and does not import with
Keras 3. These functions start another Python in which tf_keras, the Keras 2 of today, stands in
for the Keras it knows, rebuild the network there with the same weights, check that it gives the
same scores, and bring back what keras-vis computes. Starting takes 5 to 15 seconds for each call,
so pass all the images at once.

Only chains of plain layers can be rebuilt: convolutions, poolings, batch normalisations,
activations, dropouts, Flatten and Dense. A final softmax or sigmoid is exchanged for a linear
activation with keras-vis's own ``apply_modifications``, as the document does.

References
----------
Raghavendra Kotikalapudi and contributors, keras-vis, https://github.com/raghakot/keras-vis (2017).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from course_utils._arrays import check_whole
from course_utils._scores import predict, score_model
from course_utils._shared import check_built, check_images, check_targets, find_layer, layer_calls


def saliency_map(model, images, targets, *, backprop_modifier=None, timeout=300):
    """Return keras-vis's saliency: the absolute gradient of the logit, drawn out to 0..1.

    Parameters
    ----------
    model : keras.Model
        A chain of plain layers.
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class to explain, for all images or for each; 1 for a network with one sigmoid output.
    backprop_modifier : "guided" or "rectified", optional
        What the gradient passes at a ReLU: "guided" lets through only what is positive where
        the ReLU's output is, too.
    timeout : float
        Seconds after which the process is ended.

    Returns
    -------
    float32 (N, H, W)
        The maximum over the channels, of which each image's smallest value is made 0 and its
        largest 1.

    Raises
    ------
    ImportError
        If keras-vis or tf_keras is not installed.
    RuntimeError
        If its process fails or takes too long; the message ends with the last line it wrote.
    ValueError
        If an argument does not fit, or the model is not a chain of plain layers.
    """
    if backprop_modifier not in (None, "guided", "rectified"):
        raise ValueError(
            f'backprop_modifier must be None, "guided" or "rectified", got {backprop_modifier!r}.'
        )
    images = check_images(model, images)
    outputs = _outputs(model, targets, len(images))
    task = {"call": "visualize_saliency", "backprop_modifier": backprop_modifier}
    return _run(model, images, {**task, "outputs": outputs}, timeout)


def grad_cam(model, images, targets, *, layer=None, timeout=300):
    """Return keras-vis's gradient-weighted class activation map of the logit, drawn out to 0..1.

    Parameters
    ----------
    layer : str, int or layer, optional
        Whose feature maps to weight; if not given keras-vis takes the last convolution or pooling.

    Notes
    -----
    The other parameters, what is returned and the errors are those of `saliency_map`; the maps
    are enlarged to the size of the images with a bicubic filter.
    """
    images = check_images(model, images)
    outputs = _outputs(model, targets, len(images))
    index = None if layer is None else _layer_index(model, layer)
    if index is not None and len(_chain(model)[index][1].shape) != 4:
        raise ValueError(f"layer {layer!r} has no feature maps: choose one before Flatten.")
    task = {"call": "visualize_cam", "layer": index, "outputs": outputs}
    return _run(model, images, task, timeout)


def maximize_activation(
    model,
    targets,
    *,
    layer=None,
    steps=200,
    input_range=(0.0, 1.0),
    lp_norm_weight=10.0,
    tv_weight=10.0,
    seed=0,
    timeout=300,
):
    """Return the images keras-vis finds when it searches for what a class or filter answers to.

    Parameters
    ----------
    model : keras.Model
        A chain of plain layers.
    targets : int or int array (N,)
        Classes; or, where `layer` is given, its filters or units.
    layer : str, int or layer, optional
        The layer whose output to maximise, on average over all places.
    steps : int
        Steps of the search.
    input_range : (float, float)
        The range of the network's images. The search is not held to it: keras-vis gives what it
        finds the mean of the range, spreads it, and clips it.
    lp_norm_weight, tv_weight : float
        How much weight the size of the pixels, and their differences, have against the score.
    seed : int
        Of the noise that each search begins with.
    timeout : float
        Seconds after which the process is ended.

    Returns
    -------
    float32 (N, H, W, C)

    Raises
    ------
    ImportError
        As `saliency_map` does, and as it does RuntimeError and ValueError.
    """
    check_whole("steps", steps, 1)
    check_whole("seed", seed, 0, 2**32 - 1)
    steps, seed = int(steps), int(seed)
    low, high = map(float, input_range)
    if not low < high:
        raise ValueError(f"input_range must be (least, largest), got {input_range!r}.")
    targets = np.atleast_1d(targets)
    if layer is None:
        index, outputs = -1, _outputs(model, targets, len(targets))
    else:
        index = _layer_index(model, layer)
        outputs = _filters(_chain(model)[index][1].shape[-1], targets)
    options = {"input_range": (low, high), "max_iter": steps}
    options |= {"lp_norm_weight": float(lp_norm_weight), "tv_weight": float(tv_weight)}
    task = {"call": "visualize_activation", "layer": index, "seed": seed, "options": options}
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise ValueError(f"the model must take images of one fixed size, it takes {shape}.")
    # Noise, on which the rebuilt network is compared with the model.
    noise = np.random.default_rng(0).uniform(low, high, (4, *shape))
    return _run(model, noise.astype(np.float32), {**task, "outputs": outputs}, timeout)


def _outputs(model, targets, count):
    """The targets as a list of the model's outputs."""
    targets = check_targets(model, targets, count)
    if model.outputs[0].shape[-1] == 1:
        if not targets.all():
            raise ValueError(
                "keras-vis explains outputs, and this model has one, that of class 1: "
                "there is none for target 0."
            )
        targets = targets - 1
    return targets.tolist()


def _filters(count, targets):
    """The targets as a list of a layer's filters."""
    if targets.dtype.kind not in "iu" or targets.ndim != 1 or not targets.size:
        raise ValueError(f"targets must be one or more filters (whole numbers), got {targets}.")
    if targets.min() < 0 or targets.max() >= count:
        raise ValueError(f"the layer has filters 0 to {count - 1}, got {targets.tolist()}.")
    return targets.tolist()


def _layer_index(model, layer):
    found = find_layer(model, layer)
    indices = [i for i, (called, _) in enumerate(_chain(model)) if called is found]
    if not indices:
        raise ValueError(f"layer {found.name!r} is not one of those behind the model's input.")
    return indices[-1]


# The layers that both Kerases have, and those of their options that change what they compute.
_PLAIN = {
    "Activation": ("activation",),
    "AveragePooling2D": ("pool_size", "strides", "padding"),
    "BatchNormalization": ("axis", "epsilon", "center", "scale"),
    "Conv2D": (
        *("filters", "kernel_size", "strides", "padding", "dilation_rate"),
        *("activation", "use_bias"),
    ),
    "Dense": ("units", "activation", "use_bias"),
    "Dropout": ("rate",),
    "Flatten": (),
    "GlobalAveragePooling2D": ("keepdims",),
    "GlobalMaxPooling2D": ("keepdims",),
    "MaxPooling2D": ("pool_size", "strides", "padding"),
    "ReLU": ("max_value", "negative_slope", "threshold"),
}


def _chain(model):
    """The (layer, output tensor) a model consists of, from input to output, each after the last."""
    check_built(model)
    calls = layer_calls(model)
    before = model.inputs[0]
    for layer, inputs, outputs in calls:
        if len(inputs) != 1 or inputs[0] is not before:
            raise ValueError(f"keras-vis gets chains of layers; {layer.name!r} is not in a chain.")
        before = outputs[0]
    return [(layer, outputs[0]) for layer, _, outputs in calls]


def _describe(layer):
    """The kind of a layer and its options, as JSON can hold them."""
    kind = type(layer).__name__
    config = layer.get_config()
    if kind not in _PLAIN or type(layer) is not getattr(keras.layers, kind):
        raise ValueError(
            f"layer {layer.name!r} is a {kind}, which cannot be rebuilt for keras-vis. "
            f"Those that can are {', '.join(_PLAIN)}."
        )
    if not isinstance(config.get("activation", ""), str):
        raise ValueError(f"layer {layer.name!r} has an activation that is not one of Keras's own.")
    if config.get("data_format", "channels_last") != "channels_last":
        raise ValueError(f"layer {layer.name!r} has its channels first; keras-vis gets them last.")
    if config.get("groups", 1) != 1:  # tf_keras cannot differentiate these in a graph, on a CPU
        raise ValueError(f"layer {layer.name!r} convolves in groups, which keras-vis cannot take.")
    return kind, {option: config[option] for option in _PLAIN[kind]}


def _run(model, images, task, timeout):
    """Hand the model, the images and the task to the process; return its answers."""
    _check_installed()
    layers, arrays = [], {}
    for index, (layer, _) in enumerate(_chain(model)):
        described = _describe(layer)  # or an error: an operation in the graph has no weights
        weights = layer.get_weights()
        layers.append((*described, len(weights)))
        arrays |= {f"weight_{index}_{i}": weight for i, weight in enumerate(weights)}
    arrays |= {"images": images, "scores": predict(score_model(model, "logit"), images, 64)}
    task = json.dumps({**task, "shape": images.shape[1:], "layers": layers})
    with tempfile.TemporaryDirectory(prefix="keras_vis_") as folder:
        np.savez(Path(folder, "request.npz"), task=task, **arrays)
        _wait_for_process(folder, timeout)
        with np.load(Path(folder, "answer.npz")) as answer:
            return answer["answers"]


_WORKER = Path(__file__).with_name("_keras_vis_worker.py")


def _wait_for_process(folder, timeout):
    """Run the worker to its end, or end it; raise RuntimeError unless it did its work."""
    # Without a GPU: this process may have taken all of its memory.
    switches = {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1", "MPLBACKEND": "agg"}
    switches["TMPDIR"] = folder  # TensorFlow writes files of its own, and leaves them when killed
    log = Path(folder, "log.txt")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), folder, str(os.getpid())],
            env=os.environ | switches,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # and with it a group, which is ended as a whole
        )
        try:
            code = process.wait(timeout)
            if code == 0:
                return
            failure = f"ended with code {code}"
        except subprocess.TimeoutExpired:
            failure = f"was ended after {timeout} seconds (the timeout)"
        finally:
            _end(process)
    lines = log.read_text(encoding="utf8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    raise RuntimeError(f"the process of keras-vis {failure}. The last it wrote: {last}")


def _end(process):
    """End the process and those it may have started, if any is left."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _check_installed():
    """Raise ImportError that says what to install, if something is missing."""
    found = {}
    for name in ("keras-vis", "tf-keras"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    if found.get("keras-vis") == "0.4.1" and "tf-keras" in found:
        return
    tf_keras = f"tf-keras=={'.'.join(tf.__version__.split('.')[:2])}.*"  # it follows TensorFlow's
    raise ImportError(
        "The original keras-vis runs where keras-vis 0.4.1 and tf-keras are installed: "
        f'pip install "keras-vis==0.4.1" "{tf_keras}" (the extra "book" of the course holds both).'
    )
