"""How long Shapley values, RISE, relevance and Grad-CAM's relatives take, beside bare passes.

Needs 4 GB and about ten minutes on two quiet cores: python tests/benchmarks/credit.py [rounds]
"""

import sys
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from _bench import compare, duration, publish, ratio, table
from _passes import FOLDED, forward, gradient
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.layercam import Layercam
from tf_keras_vis.scorecam import Scorecam

from course_utils import cam, datasets, models, occlusion, relevance, shapley
from course_utils.lime_image import superpixels

BARE, OURS, VIS = "bare passes", "this course", "tf-keras-vis"
SMALL, LARGE = 1000, 256  # samples

TEXT = """*Bare passes* are the network as Keras calls it, compiled, forward, or forward and back \
where a method needs a gradient, with nothing to hide. {folded} The ratios are of processor time, \
which other work on the computer lengthens least, and in the last column of the time by the \
clock: where the bare passes keep all cores busy and the rest one, that is more. Zennit and \
shap need other environments and stand in a section of their own. *alpha2-beta1* needs, of each \
layer, the sums of what speaks for and against its outputs: {small_least:.1f} times the \
multiplications of the bare passes in the tank detector, and {large_least:.1f} times in \
EfficientNet-Lite0, where {large_signed:.0%} of them are in layers that take in numbers of both \
signs.

The tank detector, 64 × 64 pixels, {small_samples:,} samples:

{small}

EfficientNet-Lite0, 224 × 224 pixels, {large_samples:,} samples:

{large}
"""


class Setting(NamedTuple):
    """On what the methods are run."""

    model: keras.Model
    images: np.ndarray
    batch: int
    samples: int

    @property
    def logits(self):
        return models.logit_model(self.model)

    def passes(self, count, back=False):
        """Run `count` images through the network, forward or forward and back."""
        run = gradient(self.logits) if back else forward(self.logits)
        images = tf.constant(np.resize(self.images, (self.batch, *self.images.shape[1:])))
        classes = tf.zeros(self.batch, tf.int64)
        for start in range(0, count, self.batch):
            some = slice(0, count - start)
            found = run(images[some], classes[some]) if back else run(images[some])
            found.numpy()


def parts(s):
    segments = superpixels(s.images[0], n_segments=49)
    players = int(segments.max()) + 1
    run = 2 + (s.samples - 2) // (2 * (players - 1)) * 2 * (players - 1)
    options = {"segments": segments, "samples": s.samples, "batch_size": s.batch}
    return f"Shapley values of {players} parts", {
        BARE: lambda: s.passes(run),
        OURS: lambda: shapley.explain_parts(s.model, s.images[0], 0, **options),
    }


def rise(s):
    options = {"samples": s.samples, "batch_size": s.batch, "score": "logit"}
    return "RISE", {
        BARE: lambda: s.passes(s.samples),
        OURS: lambda: occlusion.rise_map(s.model, s.images[:1], 0, **options),
    }


def score_cam(s):
    layer = cam._find_maps(s.model, None)
    count, vis = layer.output.shape[-1], Scorecam(s.logits, clone=False)
    return f"Score-CAM, {count} maps", {
        BARE: lambda: s.passes(count),
        OURS: lambda: cam.score_cam(s.model, s.images[:1], 0, batch_size=s.batch),
        VIS: lambda: vis(
            lambda outputs: outputs[:, 0],
            s.images[:1],
            penultimate_layer=layer.name,
            batch_size=s.batch,
        ),
    }


def with_gradient(explain, peer=None):
    def method(s):
        layer = cam._find_maps(s.model, None)
        contenders = {
            BARE: lambda: s.passes(len(s.images), back=True),
            OURS: lambda: explain(s.model, s.images, 0, batch_size=s.batch),
        }
        if peer:
            vis = peer(s.logits, clone=False)
            contenders[VIS] = lambda: vis(
                lambda outputs: outputs[:, 0], s.images, penultimate_layer=layer.name
            )
        return f"{explain.__name__}, {len(s.images)} images", contenders

    return method


def by_rule(rule):
    def method(s):
        options = {"rule": rule, "batch_size": s.batch}
        return f"relevance, {rule}, {len(s.images)} images", {
            BARE: lambda: s.passes(len(s.images), back=True),
            OURS: lambda: relevance.relevance_map(s.model, s.images, 0, **options),
        }

    return method


def signed(s):
    """The share of the multiplications that are in layers that take in numbers of both signs."""
    weighty = [x for x in s.model.layers if len(getattr(x, "kernel", np.empty(0)).shape) > 1]
    inputs = keras.Model(s.model.inputs, [x.input for x in weighty]).predict(s.images[:1])
    counts = [np.prod(x.output.shape[1:-1]) * np.prod(x.kernel.shape) for x in weighty]
    return np.dot(counts, [taken.min() < 0 for taken in inputs]) / np.sum(counts)


METHODS = (
    parts,
    rise,
    score_cam,
    with_gradient(cam.grad_cam),
    with_gradient(cam.hires_cam),
    with_gradient(cam.layer_cam, Layercam),
    with_gradient(cam.grad_cam_plus_plus, GradcamPlusPlus),
    by_rule("epsilon-plus"),
    by_rule("epsilon-gamma-box"),
    by_rule("epsilon-alpha2-beta1"),
)


def measure(setting, rounds):
    """For each method, from each contender's name to its `Timing`."""
    timings = {}
    for method in METHODS:
        name, contenders = method(setting)
        timings[name] = compare(contenders, rounds)
        print(name, {n: duration(np.median(t.seconds)) for n, t in timings[name].items()})
    return timings


def lines(timings):
    """The rows of a table."""
    for method, found in timings.items():
        bare = found[BARE]
        times = [f"{ratio(found[n], bare, 'cpu'):.2f}" if n in found else "–" for n in (OURS, VIS)]
        clock = f"{ratio(found[OURS], bare):.2f}"
        yield (method, duration(np.median(bare.cpu)), *times, clock)


def main(rounds=5):
    keras.config.disable_interactive_logging()  # tf-keras-vis calls predict
    scenes = datasets.make_scenes(64, confounded=False, seed=0).images
    detector = Setting(models.load_trained("scenes_fair"), scenes, 64, SMALL)
    classifier = models.imagenet_classifier()
    photos = [datasets.load_photo(name) for name in datasets.photo_names()[:8]]
    photos = classifier.preprocess(np.stack(photos))
    photos = Setting(classifier.model, photos, 16, LARGE)
    large = measure(photos, max(1, rounds // 2))
    small = measure(detector, rounds)
    header = ("", BARE, OURS, VIS, "this course, by the clock")
    text = TEXT.format(
        folded=FOLDED,
        small_samples=SMALL,
        large_samples=LARGE,
        small_least=2 + 2 * signed(detector),  # two sums, or four, forward and back
        large_least=2 + 2 * signed(photos),
        large_signed=signed(photos),
        small=table(header, lines(small)),
        large=table(header, lines(large)),
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
    publish("credit", "Shapley values, RISE, relevance and the CAM family", text, numbers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
