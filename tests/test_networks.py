"""Every method on random networks, against the same computed slowly, in plain TensorFlow.

The networks and their references are those of `networks`. What is slow is written down from the
definitions: a loop over patches, a gradient for each point, a fit by least squares, all players'
orders; in double precision, one image at a time.
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from networks import random_network

from course_utils import (
    activation,
    attack,
    cam,
    embedding,
    gradients,
    inspection,
    lime_image,
    metrics,
    occlusion,
    shapley,
)


def of_target(outputs, target, score):
    """The target's score of outputs (N, K) or (N, 1)."""
    if outputs.shape[-1] > 1:
        return outputs[:, target]
    opposite = -outputs[:, 0] if score == "logit" else 1 - outputs[:, 0]
    return outputs[:, 0] if target == 1 else opposite


class Slow:
    """What the methods define, of one image of one network."""

    def __init__(self, network, image, target):
        self.network, self.image, self.target = network, image.astype(np.float64), target

    def score(self, images, score="logit"):
        """The scores of images (N, H, W, C)."""
        run = self.network.scores if score == "logit" else self.network.probabilities
        return of_target(run(images), self.target, score)

    def gradient(self, image):
        x = tf.constant(image[np.newaxis], tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = self.score(x)
        return tape.gradient(score, x)[0].numpy()

    def smoothgrad(self, samples, noise):
        draws = np.random.default_rng(0).standard_normal((samples, *self.image.shape), np.float32)
        spread = noise * np.ptp(self.image)
        mean = sum(self.gradient(self.image + spread * draw) for draw in draws) / samples
        return np.abs(mean).max(axis=-1)

    def integrated_gradients(self, steps):
        points = [(k + 0.5) / steps * self.image for k in range(steps)]
        return (self.image * sum(map(self.gradient, points)) / steps).sum(axis=-1)

    def occlusion(self, patch, stride, fill, score):
        drops, covers = np.zeros((2, *self.image.shape[:2]))
        whole = self.score(self.image[np.newaxis], score)[0]
        for row, column, covered in occlusion.iter_occlusion(self.image, patch, stride, fill):
            place = np.s_[row : row + patch, column : column + patch]
            drops[place] += whole - self.score(covered[np.newaxis], score)[0]
            covers[place] += 1
        return drops / covers

    def coarse_cam(self, layer):
        """Grad-CAM's map before it is stretched, and what a layer puts out."""
        place = self.network.maps[layer]
        maps = self.network.scores(self.image[np.newaxis], stop=place)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            score = of_target(self.network.scores(maps, begin=place), self.target, "logit")
        weights = tape.gradient(score, maps).numpy().mean(axis=(1, 2))
        return np.maximum((maps.numpy() * weights[:, None, None]).sum(axis=-1)[0], 0), maps[0]

    def shown(self, shown, segments, fill):
        """The image with the parts (rows, parts) that are shown, the others filled."""
        return np.where(shown[:, segments][..., np.newaxis], self.image, fill)

    def shapley(self, segments, fill):
        parts = segments.max() + 1
        values = np.zeros(parts)
        orders = list(itertools.permutations(range(parts)))
        for order in orders:
            shown = np.zeros((parts + 1, parts), bool)
            for place, part in enumerate(order):
                shown[place + 1 :, part] = True
            worth = self.score(self.shown(shown, segments, fill))
            values[list(order)] += np.diff(worth)
        return values / len(orders)

    def lime(self, segments, shown, fill, width):
        scores = self.score(self.shown(shown, segments, fill), "probability").numpy()
        distance = 1 - np.sqrt(shown.mean(axis=1))
        root = np.exp(-((distance / width) ** 2) / 4)[:, np.newaxis]  # of what a sample weighs
        rows = np.column_stack([shown, np.ones(len(shown))])
        return np.linalg.lstsq(rows * root, scores * root[:, 0], rcond=None)[0][:-1]

    def deletion(self, heatmap, steps, fill):
        order = np.argsort(-heatmap, axis=None)
        scores = []
        for step in range(steps + 1):
            image = self.image.copy()
            gone = order[: round(step * heatmap.size / steps)]
            image.reshape(-1, image.shape[-1])[gone] = fill
            scores.append(self.score(image[np.newaxis], "probability")[0])
        return np.array(scores)


def assert_close(found, right, network, what):
    """As close as single, or half, precision lets them be, measured by the largest value."""
    found, right = np.asarray(found, np.float64), np.asarray(right, np.float64)
    assert found.shape == right.shape, what
    size = np.abs(right).max()
    if network.precise:
        assert np.abs(found - right).max() <= 2e-4 * size + 1e-6, what
    else:  # a ReLU may be on the other side of 0, which a few pixels show
        assert np.sqrt(np.square(found - right).mean()) <= 0.1 * size + 1e-3, what


def check(seed):
    """Assert that every method agrees with the slow one on the network of a seed."""
    network = random_network(seed)
    model, images, image = network.model, network.images[:1], network.last[0]
    outputs = network.probabilities(network.last).numpy()
    target = int(np.random.default_rng(seed).integers(max(2, outputs.shape[-1])))
    slow = Slow(network, image, target)

    def last(images):
        return images if images.shape[1:] == image.shape else np.moveaxis(images, 1, -1)

    def close(found, right, what):
        assert_close(found, right, network, f"{what} of network {seed}: {network.words}")

    found = [gradients.saliency_map(model, network.images, target, batch_size=1)[0]]
    slope = slow.gradient(image)
    close(found[0], np.abs(slope).max(axis=-1), "saliency")
    found = gradients.gradient_times_input(model, images, target)[0]
    close(found, (slope * image).sum(axis=-1), "gradient times input")
    found = gradients.smoothgrad(model, images, target, samples=3, noise=0.2)[0]
    close(found, slow.smoothgrad(3, 0.2), "SmoothGrad")
    path = gradients.integrated_gradients(model, images, target, steps=5)
    close(path[0], slow.integrated_gradients(5), "integrated gradients")
    gap = metrics.completeness_gap(model, images, target, path)[0]
    change = np.diff(slow.score(np.stack([0 * image, image])))[0]
    if network.precise and abs(change) > 1e-6:  # not a dead one
        right = abs(path.sum() - change) / abs(change)
        assert gap == pytest.approx(
            right, rel=1e-2, abs=1e-3 * (1 + np.abs(path).sum() / abs(change))
        )
    for score in ("probability", "logit"):
        options = {"patch": 5, "stride": 3, "fill": 100.0, "score": score}
        found = occlusion.occlusion_map(model, images, target, **options)[0]
        close(found, slow.occlusion(**options), f"occlusion of the {score}")
    layer = list(network.maps)[-1]
    coarse, maps = slow.coarse_cam(layer)
    close(inspection.feature_maps(model, images, layer)[0], maps, "feature maps")
    found = embedding.layer_outputs(model, images, [layer])[layer][0]
    close(np.moveaxis(found, 0, -1) if found.shape != maps.shape else found, maps, "layer outputs")
    if min(coarse.shape) > 1:
        import cv2

        right = cv2.resize(coarse.astype(np.float32), image.shape[1::-1])
        right = right / right.max() if right.max() > 1e-4 * np.abs(maps).max() else right * 0
        found = cam.grad_cam(model, images, target, layer=layer)[0]
        if right.any():
            close(found, right, "Grad-CAM")
    height, width = image.shape[:2]
    segments = (np.arange(height) * 2 // height)[:, None] * 2 + np.arange(width) * 2 // width
    found = shapley.explain_parts(model, images[0], target, segments=segments, fill=50.0)
    close(found.values, slow.shapley(segments, 50.0), "Shapley values")
    shown = np.random.default_rng(seed).random((30, 4)) < 0.5
    shown[:2] = [[True] * 4, [False, True, True, True]]
    options = {"segments": segments, "perturbations": shown, "fill": 50.0}
    found = lime_image.explain_image(model, images[0], target, **options)
    close(found.weights, slow.lime(segments, shown, 50.0, 0.25), "LIME")
    heatmap = np.random.default_rng(seed).random((height, width))
    curve = metrics.deletion_curve(model, images, target, heatmap[np.newaxis], steps=5, fill=9.0)
    close(curve.scores[0], slow.deletion(heatmap, 5, 9.0), "deletion")
    best = activation.maximize_activation(model, target=target, steps=2, low=0, high=255)
    close(best.scores, slow.score(last(best.images)), "the score of what maximises it")
    if "int" not in network.model.inputs[0].dtype:
        found = attack.attack_explanation(model, images, target, epsilon=2.0, steps=2)
        close(found.before, slow.score(image[np.newaxis], "probability"), "an attack's beginning")
        made = (
            found.images
            if found.images.shape[1:] == image.shape
            else np.moveaxis(found.images, 1, -1)
        )
        close(found.after, slow.score(made, "probability"), "an attack's end")


# The first twelve hold every rule of the grammar but a few; the 200 are for make test-all.
@pytest.mark.parametrize("seed", range(12))
def test_methods_agree_with_slow_computations(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 200))
def test_methods_agree_with_slow_computations_on_200_networks(seed):
    check(seed)


def test_the_grammar_makes_every_kind_of_network():
    words = " ".join(random_network(seed).words for seed in range(40))
    for word in (
        *("channels first", "uint8", "int32", "mixed_float16", "mixed_bfloat16", "float64"),
        *("conv", "depthwise", "separable", "pool", "norm", "add", "+", "nested", "dropout"),
        *("operation in front", "Rescaling", "ops.tanh", "fused", "layer", "in float32"),
        *("sigmoid", "softmax", "mean", "maximum", "flat"),
    ):
        assert word in words


def test_the_slow_computations_see_a_wrong_one(monkeypatch):
    """They agree to more than what a wrong sign, a wrong layer or a wrong axis would change."""
    monkeypatch.setattr(gradients, "_strongest", lambda slopes: slopes.sum(axis=-1))
    with pytest.raises(AssertionError, match="saliency of network 0"):
        check(0)
