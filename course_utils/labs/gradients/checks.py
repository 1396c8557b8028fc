"""Checks of the lab on saliency and integrated gradients."""

import functools

import keras
import numpy as np
import tensorflow as tf

from course_utils import labs, models
from course_utils._scores import predict
from course_utils._shared import channels_last
from course_utils.labs._engine import (
    IMAGE,
    NotYet,
    as_array,
    call,
    compare,
    evidence,
    one_of,
    well_done,
)


def slope(function, *, seed=0):
    """Check task 1, `slope(score, image, row, column, channel, h)`."""
    rng = np.random.default_rng(seed)
    for shape, value in (((5, 7, 3), 0.5), ((4, 3, 2), 0.996), ((6, 5, 1), 0.003), ((3, 4, 3), 1)):
        weights = rng.uniform(1, 4, shape)
        image = rng.uniform(0.3, 0.7, shape)
        place = tuple(int(rng.integers(n)) for n in shape)
        image[place] = value
        steps = {h: min(value + h, 1) - max(value - h, 0) for h in (0.02, 0.1)}
        for h, room in steps.items():
            score = _Score(lambda x, w=weights: (w * x**3).sum((1, 2, 3)), shape)
            yours = call(function, score, image, *place, h)
            score.check_range()
            at = [weights[place] * v**3 for v in (min(value + h, 1), max(value - h, 0), value)]
            mistakes = {
                "the slope has the opposite sign: take the score of the brighter image minus that "
                "of the darker one.": -(at[0] - at[1]) / room,
                "this is the difference of the two scores. Divide it by the distance between the "
                "two values of the pixel.": at[0] - at[1],
                "the difference is divided by h, and the two values of the pixel lie further "
                "apart than that.": (at[0] - at[1]) / h,
                "this is a forward difference, from the image to the brighter one. Take one step "
                "to either side.": (at[0] - at[2]) / h,
                "this is a backward difference, from the darker image to the image itself. Take "
                "one step to either side.": (at[2] - at[1]) / h,
            }
            if room < 2 * h - 1e-9:
                mistakes = {
                    "at the edge of the range there is less room than 2h. Divide by the distance "
                    "that was really gone.": (at[0] - at[1]) / (2 * h),
                } | mistakes
            compare(yours, (at[0] - at[1]) / room, what="the slope", mistakes=mistakes)
    well_done("slope takes a step to either side, and stays within the range of an image.")


class _Score:
    """A score for images (N, *shape) that remembers what it was asked."""

    def __init__(self, function, shape):
        self.function, self.shape, self.asked = function, shape, []

    def __call__(self, images):
        images = np.asarray(images, np.float64)
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"images must be (N, {', '.join(map(str, self.shape))}), got {images.shape}"
            )
        self.asked.append(images)
        return self.function(images)

    def check_range(self):
        asked = np.concatenate(self.asked) if self.asked else np.zeros((0, 1))
        if not len(asked):
            raise NotYet("your function never asks for a score.")
        if not (asked.min() >= -1e-7 and asked.max() <= 1 + 1e-7):  # or NaN
            raise NotYet(
                "your function asks for the score of an image with values outside 0..1, where no "
                "picture lies. Cut the two values of the pixel off at 0 and at 1."
            )


def log_odds_gradient(function, *, seed=0):
    """Check task 2, `log_odds_gradient(model, images, a, b)`, on networks that are in doubt."""
    _log_odds_gradient(function, seed, 1)
    well_done("log_odds_gradient has the right values, with a sign for each channel.")


def log_odds_when_sure(function, *, seed=0):
    """Check task 2 on a network so sure that its probabilities are 0 and 1 in 32 bits."""
    _log_odds_gradient(function, seed, 2000)
    well_done("log_odds_gradient is right for a network that is very sure, too.")


def _log_odds_gradient(function, seed, sure):
    rng = np.random.default_rng(seed)
    for n, shape, classes in ((3, (6, 8, 3), 4), (1, (9, 5, 2), 5)):
        model = _random_network(shape, classes, int(rng.integers(2**31)), sure)
        images = rng.random((n, *shape)).astype(np.float32)
        a, b = (int(k) for k in rng.choice(classes, 2, replace=False))
        logits = models.logit_model(model)
        first, second = (_tape(logits, images, lambda z, k=k: z[:, k]) for k in (a, b))
        by_p = _tape(model, images, lambda p, a=a, b=b: p[:, a] - p[:, b])
        right = first - second
        yours = call(function, model, images, a, b)
        as_numbers = as_array(yours, "the gradient")
        if sure > 1 and (not np.isfinite(as_numbers).all() or not as_numbers.any()):
            raise NotYet(
                "for a very sure network the gradient is NaN or zero: its probabilities are "
                "rounded to 0 or 1 before you take their logarithm. The log-odds are a difference "
                "of two other numbers that the network has."
            )
        compare(
            yours,
            right,
            what="the gradient",
            axes=IMAGE,
            mistakes={
                "this is the gradient of the logit of the first class alone. The second class "
                "should count, too.": first,
                "this is the gradient of a difference of probabilities. Log-odds are a difference "
                "of logits.": by_p,
                "this is the gradient of a sum of logits. Take their difference.": first + second,
                "the channels are added up. Each should keep a gradient of its own, so that the "
                "shape is that of the images.": right.sum(-1),
                "only the largest channel is left. Each should keep a gradient of its own, so that "
                "the shape is that of the images.": np.abs(right).max(-1),
                "the gradient is that of the mean over the images, so it shrinks with their "
                "number.": right / n if n > 1 else np.inf,
            },
        )


@channels_last()
def _random_network(shape, classes, seed, sure=1):
    """A small network with random weights; `sure` multiplies its logits."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(6, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * sure, bias + sure * np.linspace(0, 0.1, classes)])
    return model


def _tape(model, images, score):
    with tf.GradientTape() as tape:
        x = tf.constant(images)
        tape.watch(x)
        value = score(model(x, training=False))
    return tape.gradient(value, x).numpy().astype(np.float64)


def largest_gradients(value, network):
    """Check the largest gradient of each channel over all pictures, whatever the network."""
    one_of(network, labs.PILL_NETWORKS, "blind_network")
    logits = models.logit_model(_network(network))
    slopes = _tape(logits, labs.load_pills().images, lambda z: z[:, 1] - z[:, 0])
    largest = np.abs(slopes).max((0, 1, 2))
    names = [f"the largest gradient of channel {channel}" for channel in range(3)]
    evidence(value, largest, what="largest", names=names, tolerance=0.01 * largest.max() + 1e-9)


def blind(network, channel, *, seed=0):
    """Check task 3 by an experiment: other pictures' values take the place of the channel."""
    one_of(network, labs.PILL_NETWORKS, "blind_network")
    one_of(channel, range(3), "blind_channel")
    images = labs.load_pills().images
    mixed = images.copy()
    order = np.random.default_rng(seed).permutation(len(images))
    mixed[..., channel] = images[order][..., channel]
    logits = models.logit_model(_network(network))
    change = np.abs(predict(logits, mixed, 64) - predict(logits, images, 64)).max()
    if change > 1e-6:
        raise NotYet(
            f"when channel {channel} of every picture is exchanged for another picture's, the "
            f"scores of {network} change by up to {change:.3g}. So it does see that channel."
        )
    well_done(
        f"when channel {channel} of every picture is exchanged for another picture's, no score of "
        f"{network} changes."
    )


def _network(name):
    return _of_variant(name, labs.variant())


@functools.cache
def _of_variant(name, variant):
    return labs.load_pills_network(name)


def score_gradients(function, *, seed=0):
    """Check task 4, `score_gradients(logit_gradients, probabilities, target)`."""
    rng = np.random.default_rng(seed)
    for classes, shape in ((4, (3, 5, 3)), (6, (4, 2, 1))):
        dz = rng.normal(size=(classes, *shape))
        p = rng.dirichlet(np.ones(classes))
        c = int(rng.integers(classes))
        mean = np.tensordot(p, dz, 1)
        log_p, right_p = dz[c] - mean, p[c] * (dz[c] - mean)
        yours = as_array(call(function, dz, p, c), "the stack")
        if yours.shape != (3, *shape):
            raise NotYet(
                f"the stack has shape {yours.shape}, and it should be {(3, *shape)}: logit, "
                "log-probability, probability."
            )
        compare(yours[0], dz[c], what="the gradient of the logit", axes=IMAGE)
        compare(
            yours[1],
            log_p,
            what="the gradient of the log-probability",
            axes=IMAGE,
            mistakes={
                "the second of the three is the gradient of the probability; the log-probability "
                "comes second.": right_p,
                "the gradient of the log-probability takes the plain mean over the classes. "
                "Each class should weigh as much as its probability.": dz[c] - dz.mean(0),
                "the gradient of the log-probability adds the mean of the classes and should "
                "subtract it.": dz[c] + mean,
                "the gradient of the log-probability is that of the logit divided by the "
                "probability. But the probability depends on all logits.": dz[c] / p[c],
            },
        )
        compare(
            yours[2],
            right_p,
            what="the gradient of the probability",
            axes=IMAGE,
            mistakes={
                "the gradient of the probability looks at the class's own logit alone. The other "
                "logits change the probability, too.": p[c] * (1 - p[c]) * dz[c],
                "the gradient of the probability lacks a factor: by the chain rule, that of the "
                "logarithm is it divided by the probability.": log_p,
            },
        )
    well_done("score_gradients has all three gradients right.")


def path_gradients(function, *, seed=0):
    """Check task 5, `path_gradients(gradient, image, other, steps)`, on scores known on paper."""
    rng = np.random.default_rng(seed)
    for shape, steps in (((4, 6, 3), 3), ((5, 3, 1), 8)):
        slopes = _Slopes(shape, rng)
        image, other = rng.random((2, *shape))
        way = image - other

        def mean(alphas, slopes=slopes, other=other, way=way):
            return slopes(np.stack([other + a * way for a in alphas])).mean(0)

        middles, whole = (np.arange(steps) + 0.5) / steps, np.linspace(0, 1, steps)
        right = (mean(middles) * way).sum(-1)
        yours = call(function, slopes, image, other, steps)
        compare(
            yours,
            right,
            what="the map",
            mistakes={
                "the points lie at the beginnings of the parts. Take their middles.": (
                    mean(np.arange(steps) / steps) * way
                ).sum(-1),
                "the points lie at the ends of the parts. Take their middles.": (
                    mean((np.arange(steps) + 1) / steps) * way
                ).sum(-1),
                "the points run from one end of the way to the other, both included. Take the "
                "middles of equal parts.": (mean(whole) * way).sum(-1),
                "the map lacks the distance: multiply the mean gradient by what changes between "
                "the two images.": mean(middles).sum(-1),
                "the mean gradient is multiplied by the image. It should be multiplied by what "
                "changes on the way, and the way does not begin at zero.": (
                    mean(middles) * image
                ).sum(-1),
                "this is the gradient at the image itself, times the distance. Take it on the "
                "whole way.": (slopes(image[None])[0] * way).sum(-1),
                "the way begins at zero and not at the other image.": (
                    slopes(np.stack([a * image for a in middles])).mean(0) * image
                ).sum(-1),
                "the gradients are added up over the way. Take their mean.": steps * right,
                "the channels are still apart. Add them up, so that the map has one value for "
                "each pixel.": mean(middles) * way,
            },
        )
    well_done("path_gradients takes the mean gradient at the middles of the parts of the way.")


class _Slopes:
    """The gradient of a score that is no polynomial of low degree, for images (N, *shape)."""

    def __init__(self, shape, rng):
        self.shape = shape
        self.weights, self.waves = rng.normal(size=(2, *shape))

    def __call__(self, images):
        images = np.asarray(images, np.float64)
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"images must be (N, {', '.join(map(str, self.shape))}), got {images.shape}"
            )
        inner = (self.waves * images).sum((1, 2, 3), keepdims=True)
        return self.weights * images**4 + np.exp(0.3 * inner) * self.waves


def completeness(function, *, seed=0):
    """Check task 5 on a trained network: the map adds up to the change of the log-odds."""
    pills, rng = labs.load_pills(), np.random.default_rng(seed)
    logits = models.logit_model(_network("ash"))
    for kinds in ((0, 3), (2, 1)):
        one, two = (int(rng.choice(np.flatnonzero(pills.kinds == k))) for k in kinds)

        def gradient(images, kinds=kinds):
            x = np.asarray(images, np.float32)
            return _tape(logits, x, lambda scores: scores[:, kinds[0]] - scores[:, kinds[1]])

        yours = call(function, gradient, pills.images[one], pills.images[two], 128)
        heat = as_array(yours, "the map")
        if not np.isfinite(heat).all():
            raise NotYet("the map holds NaN or infinity.")
        total = heat.sum()
        z = predict(logits, pills.images[[one, two]], 2)[:, list(kinds)]
        change = float((z[0, 0] - z[0, 1]) - (z[1, 0] - z[1, 1]))
        if not abs(total - change) <= 0.05 * abs(change):
            raise NotYet(
                f"the map adds up to {total / change:.2f} times the change of the log-odds between "
                "the two images, on a way of 128 steps. It should be 1, to a few hundredths."
            )
    well_done("the maps add up to the change of the log-odds between the two pictures.")


def expected_gradients(function, *, seed=0):
    """Check task 6, `expected_gradients(gradient, image, others)`."""
    rng = np.random.default_rng(seed)
    for shape, n in (((4, 6, 3), 5), ((3, 5, 1), 2), ((4, 3, 2), 1)):
        slopes = _Slopes(shape, rng)
        image, others = rng.random(shape), rng.random((n, *shape))
        ways, alphas = image - others, (np.arange(n) + 0.5) / n

        def at(alphas, slopes=slopes, others=others, ways=ways):
            return slopes(others + np.reshape(alphas, (-1, 1, 1, 1)) * ways)

        def total(terms):
            return terms.mean(0).sum(-1)

        middle = others.mean(0)
        line = slopes(np.stack([middle + a * (image - middle) for a in alphas]))
        right = total(at(alphas) * ways)
        yours = call(function, slopes, image, others)
        compare(
            yours,
            right,
            what="the map",
            mistakes={
                "every gradient is taken in the middle of its way. The k-th of n should be taken "
                "at a place of its own.": total(at(np.full(n, 0.5)) * ways),
                "the places on the ways are off by half a part: they should lie in the middles of "
                "n parts, so that neither 0 nor 1 is among them.": total(
                    at(np.arange(n) / n) * ways
                ),
                "the places on the ways run backwards: 0 is the other image, 1 the image.": (
                    total(at(1 - alphas) * ways) if n > 1 else np.inf
                ),
                "this is one way, from the mean of the other images. Each has a way of its own.": (
                    total(line * (image - middle))
                ),
                "the mean gradient is multiplied by the mean distance. Multiply each gradient by "
                "its own distance, then take the mean.": (at(alphas).mean(0) * ways.mean(0)).sum(
                    -1
                ),
                "the gradients are taken at the image itself. Take each on its way.": total(
                    slopes(np.repeat(image[None], n, 0)) * ways
                ),
                "the other images' maps are added up. Take their mean.": n * right,
                "the channels are still apart. Add them up, so that the map has one value for "
                "each pixel.": (at(alphas) * ways).mean(0),
            },
        )
    well_done("expected_gradients takes each other image, and one place on the way from it.")


MOST_PIXELS = 8


def read_pixels(network, pixels, *, seed=0, least=0.75):
    """Check task 7 by an experiment: the pixels change places with those of another kind's pill."""
    one_of(network, labs.PILL_NETWORKS, "the network")
    pills = labs.load_pills()
    mask = _check_mask(pixels, pills.images.shape[1:3])
    follow = _share_that_follow(network, pills, mask, seed)
    outside = _share_that_follow(network, pills, _elsewhere(mask, seed), seed)
    told = (
        f"when your {mask.sum()} pixels are exchanged for those of another kind's picture, "
        f"{follow:.0%} of the answers of {network} become that kind"
    )
    if follow < least:
        raise NotYet(f"{told}. So these are not the pixels it decides by, or not all of them.")
    well_done(f"{told}; with as many other pixels, {outside:.0%}.")


def _check_mask(pixels, shape):
    mask = np.asarray(pixels)
    if pixels is Ellipsis or pixels is None:
        raise NotYet("the pixels have no value yet. Put your answer in place of it.")
    if mask.shape == shape[::-1]:
        raise NotYet(f"the pixels are {mask.shape}: rows come first, so it should be {shape}.")
    if mask.dtype != bool or mask.shape != shape:
        raise NotYet(
            f"the pixels should be an array of bool {shape}, True where the network reads, and it "
            f"is {mask.dtype} {mask.shape}."
        )
    if not 1 <= mask.sum() <= MOST_PIXELS:
        raise NotYet(
            f"{mask.sum()} pixels are marked, and it should be from 1 to {MOST_PIXELS}. Which are "
            "the ones that it cannot do without?"
        )
    return mask


def _elsewhere(mask, seed):
    other = np.zeros(mask.size, bool)
    free = np.flatnonzero(~mask.ravel())
    other[np.random.default_rng(seed).choice(free, mask.sum(), replace=False)] = True
    return other.reshape(mask.shape)


def _share_that_follow(network, pills, mask, seed):
    """How many of the answers become the kind that the pixels came from."""
    rng = np.random.default_rng(seed)
    kinds = pills.kinds
    donors = np.array([rng.choice(np.flatnonzero(kinds != kind)) for kind in kinds])
    mixed = np.where(mask[..., None], pills.images[donors], pills.images)
    answers = predict(_network(network), mixed, 64).argmax(1)
    return (answers == kinds[donors]).mean()
