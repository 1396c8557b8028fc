"""What every method of the course costs, beside other libraries, on the same network and images.

Needs the `peers` extra, 4 GB and about ten minutes on two quiet cores:
python tests/benchmarks/all_methods.py [rounds]
"""

import sys
import warnings
from typing import NamedTuple

import keras
import numpy as np
import saliency.core as pair
import tensorflow as tf
from _bench import compare, duration, publish, ratio, table, verdict
from _passes import forward, gradient
from lime import lime_image as lime
from tf_explain import core as explain
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency

from course_utils import cam, datasets, gradients, lime_image, models, occlusion

BARE, OURS, LOOP = "bare passes", "this course", "documents' loop"
VIS, PAIR, EXPLAIN, LIME = "tf-keras-vis", "PAIR saliency", "tf-explain", "lime"
COLUMNS = (OURS, VIS, PAIR, EXPLAIN, LIME, LOOP)

TEXT = """Every method of the course, and the same method of other libraries, on one network and \
the same images, in one process. *Bare passes* are the network as Keras calls it, compiled by \
TensorFlow, forward, or forward and back where a method needs a gradient, {batch} images at a time \
(for the larger network {large_batch}); their column is their processor time. The others are \
ratios to it, the median of the rounds' ratios. Three things can come below 1: Grad-CAM's passes \
go back to its layer only, exact occlusion computes only what a patch can change, and where a \
batch normalisation follows a convolution, as in the larger network, this course computes the two \
as one. A dash means that a library does not have the method. The libraries get the network \
without its softmax or sigmoid, and PAIR's and lime, which bring no passes of their own, the bare \
ones. The documents' loop is one `model.predict` for each covered image.

The tank detector, 64 × 64 pixels:

{small}

EfficientNet-Lite0, 224 × 224 pixels:

{large}

{verdict}
"""


class Setting(NamedTuple):
    """On what the methods are run."""

    model: keras.Model
    images: np.ndarray
    batch: int
    patch: int  # of occlusion
    noisy: int  # copies for SmoothGrad
    samples: int  # of LIME

    @property
    def logits(self):
        return models.logit_model(self.model)

    def passes(self, count, back=True):
        """Run `count` images through the network, forward or forward and back."""
        run = gradient(self.logits) if back else forward(self.logits)
        images = tf.constant(np.resize(self.images, (self.batch, *self.images.shape[1:])))
        classes = tf.zeros(self.batch, tf.int64)
        for start in range(0, count, self.batch):
            some = slice(0, count - start)
            run(images[some], classes[some]) if back else run(images[some])


def for_pair(setting, layer=None):
    """The network as PAIR's library wants it."""
    logits = setting.logits
    run = gradient(logits)
    maps = layer and keras.Model(logits.inputs[0], [layer.output, logits.output])

    def call(points, call_model_args=None, expected_keys=None):
        points = tf.constant(np.asarray(points, np.float32))
        if maps is None:
            back = run(points, tf.zeros(len(points), tf.int64))
            return {pair.INPUT_OUTPUT_GRADIENTS: back.numpy()}
        with tf.GradientTape() as tape:
            features, outputs = maps(points, training=False)
            score = outputs[:, 0]
        back = tape.gradient(score, features)
        keys = (pair.CONVOLUTION_LAYER_VALUES, pair.CONVOLUTION_OUTPUT_GRADIENTS)
        return dict(zip(keys, (features.numpy(), back.numpy()), strict=True))

    return call


def saliency(s):
    call = for_pair(s)
    vis = Saliency(s.logits, clone=False)
    return f"saliency, {len(s.images)} images", {
        BARE: lambda: s.passes(len(s.images)),
        OURS: lambda: gradients.saliency_map(s.model, s.images, 0, batch_size=s.batch),
        VIS: lambda: vis(lambda outputs: outputs[:, 0], s.images, normalize_map=False),
        PAIR: lambda: [pair.GradientSaliency().GetMask(image, call) for image in s.images],
        EXPLAIN: lambda: explain.VanillaGradients().explain((s.images, None), s.logits, 0),
    }


def grad_cam(s):
    layer = cam._find_maps(s.model, None)
    call = for_pair(s, layer)
    vis = Gradcam(s.logits, clone=False)
    return f"Grad-CAM, {len(s.images)} images", {
        BARE: lambda: s.passes(len(s.images)),
        OURS: lambda: cam.grad_cam(s.model, s.images, 0, batch_size=s.batch),
        VIS: lambda: vis(lambda outputs: outputs[:, 0], s.images, penultimate_layer=layer.name),
        PAIR: lambda: [pair.GradCam().GetMask(image, call) for image in s.images],
        EXPLAIN: lambda: explain.GradCAM().explain(
            (s.images, None), s.logits, 0, layer_name=layer.name
        ),
    }


def smoothgrad(s):
    call, one = for_pair(s), s.images[:1]
    vis = Saliency(s.logits, clone=False)
    return f"SmoothGrad, {s.noisy} samples", {
        BARE: lambda: s.passes(s.noisy),
        OURS: lambda: gradients.smoothgrad(s.model, one, 0, samples=s.noisy, batch_size=s.batch),
        VIS: lambda: vis(lambda outputs: outputs[:, 0], one, smooth_samples=s.noisy),
        PAIR: lambda: pair.GradientSaliency().GetSmoothedMask(
            one[0], call, nsamples=s.noisy, magnitude=False
        ),
        EXPLAIN: lambda: explain.SmoothGrad().explain(
            (one, None), s.logits, 0, num_samples=s.noisy
        ),
    }


def integrated_gradients(s):
    call, one = for_pair(s), s.images[:1]
    return "integrated gradients, 64 steps", {
        BARE: lambda: s.passes(64),
        OURS: lambda: gradients.integrated_gradients(s.model, one, 0, batch_size=s.batch),
        PAIR: lambda: pair.IntegratedGradients().GetMask(
            one[0], call, x_steps=64, batch_size=s.batch
        ),
        EXPLAIN: lambda: explain.IntegratedGradients().explain(
            (one, None), s.logits, 0, n_steps=64
        ),
    }


def occlude(s):
    one = s.images[:1]
    places = len(occlusion.patch_places(one[0].shape, s.patch, s.patch))

    def loop():
        for _, _, covered in occlusion.iter_occlusion(one[0], s.patch):
            s.model.predict(covered[np.newaxis], verbose=0)

    return f"occlusion, {places} places", {
        BARE: lambda: s.passes(places, back=False),
        OURS: lambda: occlusion.occlusion_map(s.model, one, 0, patch=s.patch, batch_size=s.batch),
        EXPLAIN: lambda: explain.OcclusionSensitivity(batch_size=s.batch).explain(
            (one, None), s.logits, 0, patch_size=s.patch
        ),
        LOOP: loop,
    }


def explain_image(s):
    image, run = s.images[0], forward(s.model)
    segments = lime_image.superpixels(image, n_segments=49)

    def library():
        explainer = lime.LimeImageExplainer(random_state=0, feature_selection="none")
        explainer.explain_instance(
            image,
            lambda points: run(tf.constant(points)).numpy(),
            labels=(0,),
            top_labels=None,
            num_samples=s.samples,
            batch_size=s.batch,
            segmentation_fn=lambda _: segments,
        )

    return f"LIME, {s.samples} samples", {
        BARE: lambda: s.passes(s.samples, back=False),
        OURS: lambda: lime_image.explain_image(
            s.model, image, 0, segments=segments, samples=s.samples, batch_size=s.batch
        ),
        LIME: library,
    }


METHODS = (saliency, grad_cam, smoothgrad, integrated_gradients, occlude, explain_image)


def measure(setting, rounds):
    """For each method, from each contender's name to its `Timing`."""
    timings = {}
    for method in METHODS:
        name, contenders = method(setting)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' own, of every call
            timings[name] = compare(contenders, rounds)
        print(name, {n: duration(np.median(t.seconds)) for n, t in timings[name].items()})
    return timings


def lines(timings):
    """The rows of a table."""
    for method, found in timings.items():
        ratios = [
            f"{ratio(found[n], found[BARE], 'cpu'):.2f}" if n in found else "–" for n in COLUMNS
        ]
        yield (method, duration(np.median(found[BARE].cpu)), *ratios)


def main(rounds=5):
    lime.tqdm = iter  # no progress bar
    keras.config.disable_interactive_logging()  # tf-explain calls predict
    scenes = datasets.make_scenes(64, confounded=False, seed=0).images
    detector = Setting(models.load_trained("scenes_fair"), scenes, 64, 8, 50, 1000)
    classifier = models.imagenet_classifier()
    photos = [datasets.load_photo(name) for name in datasets.photo_names()[:8]]
    photos = classifier.preprocess(np.stack(photos))
    large = measure(Setting(classifier.model, photos, 16, 28, 16, 200), max(1, rounds // 2))
    small = measure(detector, rounds)
    rows = [
        (f"{method}, {size} pixels", name, found[OURS].cpu, timing.cpu)
        for size, timings in ((64, small), (224, large))
        for method, found in timings.items()
        for name, timing in found.items()
        if name not in (BARE, OURS)
    ]
    text = TEXT.format(
        batch=64,
        large_batch=16,
        small=table(("", BARE, *COLUMNS), lines(small)),
        large=table(("", BARE, *COLUMNS), lines(large)),
        verdict=verdict(rows, "processor time"),
    )
    numbers = {
        f"{size}: {method}: {name}": {
            "clock": ratio(timing, found[BARE]),
            "processor": ratio(timing, found[BARE], "cpu"),
            "memory_mb": timing.memory,
        }
        for size, timings in ((64, small), (224, large))
        for method, found in timings.items()
        for name, timing in found.items()
    }
    publish("all_methods", "All methods", text, numbers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
