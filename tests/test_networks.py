"""Every method on random networks, against the same computed slowly, in plain TensorFlow.

The networks and their references are those of `networks`. What is slow is written down from the
definitions: a loop over patches, a gradient for each point, a fit by least squares, all players'
orders; in double precision, one image at a time.
"""

import itertools

import cv2
import keras
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
    relevance,
    shapley,
)
from course_utils._folded import folds
from course_utils._plain import plain
from course_utils._shared import flat_layers


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

    def maps_and_slopes(self, layer):
        """What a layer puts out (h, w, C), and the score's gradient with respect to that."""
        place = self.network.maps[layer]
        maps = self.network.scores(self.image[np.newaxis], stop=place)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            score = of_target(self.network.scores(maps, begin=place), self.target, "logit")
        return maps[0].numpy(), tape.gradient(score, maps)[0].numpy()

    def cams(self, layer, fill):
        """The maps of Grad-CAM and its relatives, by their names, in the image's size."""
        maps, slopes = self.maps_and_slopes(layer)
        below = 2 * slopes**2 + maps.sum(axis=(0, 1)) * slopes**3
        alpha = np.divide(slopes**2, below, out=np.zeros_like(below), where=below != 0)
        weights = {
            "grad_cam": slopes.mean(axis=(0, 1)),
            "hires_cam": slopes,
            "grad_cam_plus_plus": (alpha * np.maximum(slopes, 0)).sum(axis=(0, 1)),
            "layer_cam": np.maximum(slopes, 0),
            "score_cam": self.score_cam_weights(maps, fill),
        }
        return {name: self.stretched((maps * weight).sum(-1)) for name, weight in weights.items()}

    def score_cam_weights(self, maps, fill):
        left = np.full(maps.shape[-1], -np.inf)
        for channel, map_ in enumerate(np.moveaxis(maps, -1, 0)):
            mask = cv2.resize(map_, self.image.shape[1::-1])
            if np.ptp(mask) > 0:
                mask = ((mask - mask.min()) / np.ptp(mask))[..., np.newaxis]
                masked = fill + mask * (self.image - fill)
                left[channel] = self.score(masked[np.newaxis])[0]
        weights = np.exp(left - left.max()) if np.isfinite(left).any() else 0 * maps[0, 0]
        return weights / max(weights.sum(), 1e-30)

    def stretched(self, coarse):
        """What speaks for the target, divided by the maximum."""
        fine = cv2.resize(np.maximum(coarse, 0), self.image.shape[1::-1])
        return fine / (fine.max() or 1.0)

    def rise(self, samples, cells, shown, fill):
        """The masks are the package's own, which test_rise.py draws a second time."""
        rng, size = np.random.default_rng(0), self.image.shape[:2]
        masks = occlusion._random_masks(rng, samples, size, cells, shown).astype(float)
        images = fill + masks[..., np.newaxis] * (self.image - fill)
        scores = self.score(images, "probability").numpy()
        return np.tensordot(scores, masks, 1) / (samples * shown)

    def relevance(self):
        """By the rule z: behind the scaling, what is piecewise linear gives input times slope."""
        scaled = self.network.scores(self.image[np.newaxis], stop=1)
        with tf.GradientTape() as tape:
            tape.watch(scaled)
            score = of_target(self.network.scores(scaled, begin=1), self.target, "logit")
        return (scaled * tape.gradient(score, scaled)).numpy()[0].sum(axis=-1)

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

    def deletion(self, heatmap, steps, fill, insertion=False):
        order = np.argsort(-heatmap, axis=None)
        scores = []
        for step in range(steps + 1):
            first = order[: round(step * heatmap.size / steps)]
            gone = np.full(heatmap.size, insertion)
            gone[first] = not insertion
            gone = gone.reshape(*heatmap.shape, 1)
            image = np.where(gone, fill, self.image)
            scores.append(self.score(image[np.newaxis], "probability")[0])
        return np.array(scores)


def assert_close(found, right, network, what, least=1e-3):
    """As close as single, or half, precision lets them be, measured by the largest value.

    In half precision scores are rounded to `least`, and differences of scores not less: bfloat16
    has three bits fewer than float16.
    """
    least *= 8 if "mixed_bfloat16" in network.words else 1
    found, right = np.asarray(found, np.float64), np.asarray(right, np.float64)
    assert found.shape == right.shape, what
    size = np.abs(right).max()
    if network.precise:
        assert np.abs(found - right).max() <= 2e-4 * size + 1e-6, what
    else:  # a ReLU may be on the other side of 0, which a few pixels show
        assert np.sqrt(np.square(found - right).mean()) <= 0.1 * size + least, what


def is_piecewise_linear(network):
    """Whether relevance by the rule z is input times gradient: no curves, no shift by a norm."""
    words = set(network.words.split())
    found = {getattr(layer, "activation", None) for layer in flat_layers(network.model)}
    curves = words & {"norm", "elu", "ops.tanh"} or keras.activations.softplus in found
    return not curves and "Rescaling" in words


def check(seed):
    """Assert that every method agrees with the slow one on the network of a seed."""
    network = random_network(seed)
    model, images, image = network.model, network.images[:1], network.last[0]
    outputs = network.probabilities(network.last).numpy()
    target = int(np.random.default_rng(seed).integers(max(2, outputs.shape[-1])))
    slow = Slow(network, image, target)

    def last(images):
        return images if images.shape[1:] == image.shape else np.moveaxis(images, 1, -1)

    def close(found, right, what, least=1e-3):
        assert_close(found, right, network, f"{what} of network {seed}: {network.words}", least)

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
        close(found, slow.occlusion(**options), f"occlusion of the {score}", least=0.01)
    found = occlusion.rise_map(model, images, target, samples=9, cells=3, fill=20.0)[0]
    close(found, slow.rise(9, 3, 0.5, 20.0), "RISE", least=0.01)
    if is_piecewise_linear(network):
        found = relevance.relevance_map(model, images, target, rule="zero")[0]
        close(found, slow.relevance(), "relevance")
    layer = list(network.maps)[-1]
    maps, _ = slow.maps_and_slopes(layer)
    close(inspection.feature_maps(model, images, layer)[0], maps, "feature maps")
    found = embedding.layer_outputs(model, images, [layer])[layer][0]
    close(np.moveaxis(found, 0, -1) if found.shape != maps.shape else found, maps, "layer outputs")
    for name, right in slow.cams(layer, 30.0).items():
        if min(maps.shape[:2]) > 1 and right.any() and network.precise:
            options = {"fill": 30.0} if name == "score_cam" else {}
            found = getattr(cam, name)(model, images, target, layer=layer, **options)[0]
            close(found, right, name)
    height, width = image.shape[:2]
    segments = (np.arange(height) * 2 // height)[:, None] * 2 + np.arange(width) * 2 // width
    found = shapley.explain_parts(model, images[0], target, segments=segments, fill=50.0)
    close(found.values, slow.shapley(segments, 50.0), "Shapley values", least=0.01)
    shown = np.random.default_rng(seed).random((30, 4)) < 0.5
    shown[:2] = [[True] * 4, [False, True, True, True]]
    options = {"segments": segments, "perturbations": shown, "fill": 50.0}
    found = lime_image.explain_image(model, images[0], target, **options)
    right = slow.lime(segments, shown, 50.0, 0.25)
    close(found.weights, right, "LIME", least=0.01)
    segments = lime_image.superpixels(image, "slic", 4)
    found = shapley.shapley_map(model, images, target, n_segments=4, fill=50.0)[0]
    close(found, slow.shapley(segments, 50.0)[segments], "the map of Shapley values", least=0.01)
    shown = np.random.default_rng(seed).random((30, segments.max() + 1)) < 0.5
    options = {"n_segments": 4, "perturbations": shown, "fill": 50.0}
    found = lime_image.lime_map(model, images, target, **options)[0]
    close(found, slow.lime(segments, shown, 50.0, 0.25)[segments], "the map of LIME", least=0.01)
    heatmap = np.random.default_rng(seed).random((height, width))
    for name, insertion in (("deletion_curve", False), ("insertion_curve", True)):
        run, options = getattr(metrics, name), {"steps": 5, "fill": 9.0}
        curve = run(model, images, target, heatmap[np.newaxis], **options)
        close(curve.scores[0], slow.deletion(heatmap, 5, 9.0, insertion), name)
    best = activation.maximize_activation(model, target=target, steps=2, low=0, high=255)
    right = slow.score(last(best.images))
    close(best.scores, right, "the score of what maximises it", least=0.01)
    if "int" not in network.model.inputs[0].dtype:
        found = attack.attack_explanation(model, images, target, epsilon=2.0, steps=2)
        close(found.before, slow.score(image[np.newaxis], "probability"), "an attack's beginning")
        made = (
            found.images
            if found.images.shape[1:] == image.shape
            else np.moveaxis(found.images, 1, -1)
        )
        close(found.after, slow.score(made, "probability"), "an attack's end")


# These six hold every rule of the grammar but a few; the 200 are for make test-all.
QUICK = (0, 1, 3, 4, 6, 11)


@pytest.mark.parametrize("seed", QUICK)
def test_methods_agree_with_slow_computations(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", sorted({*range(200)} - {*QUICK}))
def test_methods_agree_with_slow_computations_on_200_networks(seed):
    check(seed)


def test_the_grammar_makes_every_kind_of_network():
    missing = [
        *("channels first", "uint8", "int32", "mixed_float16", "mixed_bfloat16", "float64"),
        *("conv", "depthwise", "separable", "pool", "norm", "block"),
        *("add", "+", "nested", "dropout"),
        *("operation in front", "Rescaling", "ops.tanh", "fused", "layer", "in float32"),
        *("sigmoid", "softmax", "mean", "maximum", "flat"),
    ]
    for seed in range(40):
        words = random_network(seed).words if missing else ""
        missing = [word for word in missing if word not in words]
    assert not missing


def test_the_grammar_makes_networks_whose_normalisations_are_folded():
    folding = [bool(folds(plain(random_network(seed).model))) for seed in range(30)]
    assert 3 <= sum(folding) <= 27


def test_the_slow_computations_see_a_wrong_one(monkeypatch):
    """They agree to more than what a wrong sign, a wrong layer or a wrong axis would change."""
    monkeypatch.setattr(gradients, "_strongest", lambda slopes: slopes.sum(axis=-1))
    with pytest.raises(AssertionError, match="saliency of network 0"):
        check(0)
