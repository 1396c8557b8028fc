"""The process that `course_utils.keras_vis` starts: it runs keras-vis 0.4.1 as it was published.

keras-vis was written for the Keras, TensorFlow and scipy of 2018. This script gives it those names
back from what is installed today, with tf_keras as its Keras, and hands its answers over in a
file. It shares nothing with the process that started it: there, Keras 3 goes on undisturbed.
"""

import collections
import json
import os
import shutil
import sys
import threading
import time
import traceback
import types
from pathlib import Path

import numpy as np


def main(folder, parent):
    """Answer the request in `folder`: request.npz in, answer.npz out."""
    if os.name == "posix":  # elsewhere the parent's id stays what it was
        threading.Thread(target=end_with_parent, args=(folder, parent), daemon=True).start()
    with np.load(folder / "request.npz") as request:
        arrays = dict(request)
    task = json.loads(str(arrays["task"]))
    shims()
    keep_files_in(folder)
    model = rebuild(task, arrays)
    answers = {
        "visualize_saliency": saliency,
        "visualize_cam": cam,
        "visualize_activation": activation,
    }[task["call"]](model, task, arrays)
    np.savez(folder / "answer.npz", answers=np.asarray(answers, np.float32))


def end_with_parent(folder, parent):
    """Leave nothing behind if the process that waits for the answer is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def shims():
    """Put back the names that keras-vis imports, and graphs in place of eager execution."""
    sys.modules["pandas"] = None  # tf_keras would import it, and needs it for tables alone
    import scipy
    import tensorflow as tf
    import tf_keras
    from PIL import Image
    from tf_keras.src.layers.convolutional.base_conv import Conv
    from tf_keras.src.layers.pooling.base_pooling1d import Pooling1D
    from tf_keras.src.layers.pooling.base_pooling2d import Pooling2D
    from tf_keras.src.layers.pooling.base_pooling3d import Pooling3D

    tf.compat.v1.disable_eager_execution()
    tf_keras.backend.set_image_data_format("channels_last")  # whatever the user's keras.json says
    tf.get_default_graph = tf.compat.v1.get_default_graph
    collections.Iterable = collections.abc.Iterable
    for name, loaded in list(sys.modules.items()):
        if name.split(".")[0] == "tf_keras":
            sys.modules[name.replace("tf_keras", "keras", 1)] = loaded
    pooling = {"_Pooling1D": Pooling1D, "_Pooling2D": Pooling2D, "_Pooling3D": Pooling3D}
    module("keras.layers.convolutional", _Conv=Conv)
    module("keras.layers.pooling", **pooling)

    def imresize(array, size, interp, mode):
        """What scipy 1.1 did with floats: Pillow resized them, rows and columns exchanged."""
        assert (interp, mode) == ("bicubic", "F")
        image = Image.fromarray(np.asarray(array, np.float32))
        return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))

    module("scipy.misc", imresize=imresize)
    module("scipy.ndimage.interpolation", shift=scipy.ndimage.shift)

    from vis import optimizer

    # A graph of today does not hand out what it was fed, as the input of the network is here.
    class Backend:
        def __getattr__(self, name):
            return getattr(tf_keras.backend, name)

        def function(self, inputs, outputs):
            return tf_keras.backend.function(inputs, [tf.identity(tensor) for tensor in outputs])

    optimizer.K = Backend()


def module(name, **names):
    """Make a module that can be imported from."""
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(names)


def keep_files_in(folder):
    """Let keras-vis write its copies of the network, which it puts in /tmp, into `folder`."""
    from vis.backend import tensorflow_backend
    from vis.utils import utils

    here = os.path.relpath(folder, os.path.realpath("/tmp"))
    names = types.SimpleNamespace(_get_candidate_names=lambda: iter([os.path.join(here, "copy")]))
    utils.tempfile = tensorflow_backend.tempfile = names


def rebuild(task, arrays):
    """The network as a tf_keras model, its softmax taken off as keras-vis's guide says."""
    import tf_keras
    from vis.utils import utils

    model = tf_keras.Sequential([tf_keras.layers.InputLayer(task["shape"])])
    for index, (kind, options, weights) in enumerate(task["layers"]):
        model.add(getattr(tf_keras.layers, kind)(**options))
        model.layers[-1].set_weights([arrays[f"weight_{index}_{i}"] for i in range(weights)])
    last = model.layers[-1]
    if last.get_config().get("activation") in ("softmax", "sigmoid"):
        last.activation = tf_keras.activations.linear
        model = utils.apply_modifications(model)
    scores, expected = model.predict(arrays["images"], verbose=0), arrays["scores"]
    off = np.abs(scores - expected).max()
    if not off <= 1e-4 * max(1, np.abs(expected).max()):
        raise RuntimeError(
            f"the network rebuilt in tf_keras gives other scores, by up to {off:.3g}"
        )
    return model


def saliency(model, task, arrays):
    """For each image what visualize_saliency colours: its map in 0..1."""
    from vis.visualization import visualize_saliency

    maps = recorded_maps()
    for image, output in zip(arrays["images"], task["outputs"], strict=True):
        visualize_saliency(model, -1, output, image, backprop_modifier=task["backprop_modifier"])
    return [heatmap[0] for heatmap in maps]


def cam(model, task, arrays):
    """For each image what visualize_cam colours: its map in 0..1."""
    from vis.visualization import visualize_cam

    maps = recorded_maps()
    for image, output in zip(arrays["images"], task["outputs"], strict=True):
        visualize_cam(model, -1, output, image, penultimate_layer_idx=task["layer"])
    return maps


def recorded_maps():
    """A list that grows by each map that keras-vis hands to matplotlib's colour map jet.

    It returns a coloured picture, from which the numbers can be had only roughly.
    """
    from vis.visualization import saliency as visualization

    jet, maps = visualization.cm.jet, []

    def record(heatmap):
        maps.append(heatmap)
        return jet(heatmap)

    visualization.cm = types.SimpleNamespace(jet=record)
    return maps


def activation(model, task, arrays):
    """For each output what visualize_activation ends with, each begun from the same noise."""
    from vis.visualization import visualize_activation

    found = []
    for output in task["outputs"]:
        np.random.seed(task["seed"])  # noqa: NPY002  keras-vis draws from numpy's global state
        found.append(visualize_activation(model, task["layer"], output, **task["options"]))
    return found


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
