"""How long the gradient methods and Grad-CAM take, beside other libraries and the bare passes.

Needs 4 GB and about five minutes on two quiet cores: python tests/benchmarks/gradients.py [rounds]
"""

import sys
import warnings

import keras
import numpy as np
import tensorflow as tf
from _bench import compare, compare_table, publish, ratio
from _passes import FOLDED, gradient
from saliency import core
from tf_explain.core.integrated_gradients import IntegratedGradients
from tf_explain.core.smoothgrad import SmoothGrad
from tf_explain.core.vanilla_gradients import VanillaGradients
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.utils.scores import CategoricalScore

from course_utils import cam, datasets, gradients, models
from course_utils._scores import logit_model

BARE, PAIR, TF_KERAS_VIS, TF_EXPLAIN = "bare passes", "PAIR saliency", "tf-keras-vis", "tf-explain"

TEXT = """All of these methods are forward and backward passes of the network: one for each image, \
or one for each of the points of an image that is changed step by step (integrated gradients) or \
at random (SmoothGrad). Side by side are *{bare}*, the network as Keras calls it, compiled, on as \
many images as the method has points and in the same batches, with nothing to prepare or to add \
up; the functions of the course's package; and the libraries tf-keras-vis, PAIR saliency and \
tf-explain, on the same logits and, where they take one, with the same batch size. PAIR saliency \
asks its caller for the gradient and gets the compiled one; its SmoothGrad, and tf-keras-vis's, \
take one noisy copy of an image at a time. tf-explain's pictures are normalised and made a grid, \
which is little of its time; its Grad-CAM stands under *All methods*. The passes of Grad-CAM go \
forward through the whole network, and back to the layer.
"""


def bare_passes(run, images, target, times=1):
    """Forward and backward for each image, `times` over; at most 64 images at once."""
    batch = np.repeat(images, times, axis=0)
    parts = [tf.constant(batch[i : i + 64]) for i in range(0, len(batch), 64)]
    pairs = [(part, tf.fill([len(part)], np.int64(target))) for part in parts]
    return lambda: [run(*pair).numpy() for pair in pairs]


def to_the_layer(logits, layer):
    """The compiled passes of Grad-CAM: forward through a flat network, and back to a layer."""
    body, head = keras.Model(logits.input, layer.output), keras.Model(layer.output, logits.output)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, *logits.input_shape[1:])),
            tf.TensorSpec((None,), tf.int64),
        ]
    )
    def passes(images, targets):
        maps = body(images, training=False)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(maps)
            outputs = head(maps, training=False)
            columns = targets if outputs.shape[-1] > 1 else tf.zeros_like(targets)
            scores = tf.gather(outputs, columns, batch_dims=1)
        return tape.gradient(scores, maps)

    return passes


def measure(model, images, target, points, rounds):
    """Time every method on the images, or on the first with so many points; a dict of timings."""
    logits, few = logit_model(model), images[:1]
    run, column = gradient(logits), target if logits.output_shape[-1] > 1 else 0

    def for_pair(batch, call_model_args=None, expected_keys=None):
        batch = tf.constant(batch, tf.float32)
        found = run(batch, tf.fill([len(batch)], np.int64(target))).numpy()
        return {core.INPUT_OUTPUT_GRADIENTS: found}

    pair_saliency, pair_path = core.GradientSaliency(), core.IntegratedGradients()
    peer, peer_cam, score = Saliency(logits), Gradcam(logits), CategoricalScore(column)
    layer = cam._find_maps(model, None)
    contenders = {
        "Saliency": {
            BARE: bare_passes(run, images, target),
            "`saliency_map`": lambda: gradients.saliency_map(model, images, target),
            PAIR: lambda: [pair_saliency.GetMask(image, for_pair) for image in images],
            TF_KERAS_VIS: lambda: peer(score, images),
            TF_EXPLAIN: lambda: VanillaGradients().explain_score_model(
                (images, None), logits, column
            ),
        },
        "Grad-CAM": {
            BARE: bare_passes(to_the_layer(logits, layer), images, target),
            "`grad_cam`": lambda: cam.grad_cam(model, images, target),
            TF_KERAS_VIS: lambda: peer_cam(score, images, penultimate_layer=layer),
        },
        "SmoothGrad": {
            BARE: bare_passes(run, few, target, points),
            "`smoothgrad`": lambda: gradients.smoothgrad(model, few, target, samples=points),
            PAIR: lambda: pair_saliency.GetSmoothedMask(few[0], for_pair, nsamples=points),
            TF_KERAS_VIS: lambda: peer(score, few, smooth_samples=points),
            TF_EXPLAIN: lambda: SmoothGrad().explain(
                (few, None), logits, column, num_samples=points, noise=0.15
            ),
        },
        "Integrated gradients": {
            BARE: bare_passes(run, few, target, points),
            "`integrated_gradients`": lambda: gradients.integrated_gradients(
                model, few, target, steps=points
            ),
            PAIR: lambda: pair_path.GetMask(few[0], for_pair, x_steps=points, batch_size=64),
            TF_EXPLAIN: lambda: IntegratedGradients().explain(
                (few, None), logits, column, n_steps=points
            ),
        },
    }
    return {method: compare(functions, rounds) for method, functions in contenders.items()}


def main(rounds=7):
    """Measure two networks and write their section."""
    warnings.simplefilter("ignore")  # of what the libraries feed to Keras
    scenes = datasets.make_scenes(64, confounded=False, seed=0).images
    classifier = models.imagenet_classifier()
    names = datasets.photo_names()[:8]
    photos = np.concatenate([classifier.preprocess(datasets.load_photo(name)) for name in names])
    runs = {
        "The tank detector, 64 pixels: {n} images, or 1 image and {points} points": (
            models.load_trained("scenes_fair"),
            scenes.astype(np.float32),
            1,
            64,
            3 * rounds,
        ),
        "EfficientNet-Lite0, 224 pixels: {n} images, or 1 image and {points} points": (
            classifier.model,
            photos,
            388,
            16,
            rounds,
        ),
    }
    text, numbers = f"{TEXT.format(bare=BARE).strip()} {FOLDED}\n", {}
    for title, (model, images, target, points, rounds) in runs.items():
        text += f"\n### {title.format(n=len(images), points=points)}\n"
        for method, timings in measure(model, images, target, points, rounds).items():
            text += f"\n**{method}**, rounds: {rounds}\n\n{compare_table(timings, BARE)}\n"
            numbers[f"{model.name}: {method}"] = {
                name: [ratio(timing, timings[BARE], clock) for clock in ("seconds", "cpu")]
                for name, timing in timings.items()
            }
    publish("gradients", "Gradients and Grad-CAM", text.strip(), numbers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
