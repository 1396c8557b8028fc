"""Checks of the lab on LIME."""

from functools import cache
from itertools import combinations, pairwise

import numpy as np

from course_utils import labs
from course_utils.labs._engine import (
    IMAGE,
    TABLE,
    NotYet,
    as_array,
    call,
    compare,
    evidence,
    one_of,
    well_done,
)
from course_utils.labs.lime.checks_of_fit import fit as fit
from course_utils.labs.lime.checks_of_fit import fit_of_few as fit_of_few


def draw_masks(function, *, seed=0):
    """Check the random masks of zeros and ones."""
    rng = np.random.default_rng(seed)
    for keep in (0.5, 0.8, 0.25):
        samples, regions, own = 1000, int(rng.integers(30, 50)), int(rng.integers(0, 10**6))
        masks = as_array(call(function, samples, regions, keep, own), "the array of masks")
        _check_zeros_and_ones(masks, (samples, regions))
        rest = masks[1:]
        if np.ptp(rest.mean(0)) > 0.2:
            raise NotYet("some regions are shown far more often than others.")
        if abs(rest.mean() - keep) > 0.02:
            raise NotYet(
                "`keep` is the probability that a region is shown, and you hide with it: 1 means "
                "shown."
                if abs(rest.mean() - (1 - keep)) < 0.02
                else f"with keep={keep} your masks show {rest.mean():.2f} of the regions."
            )
        if masks[0].min() == 0:
            raise NotYet("the first sample should show every region.")
        _check_independent(rest, keep)
        again = as_array(call(function, samples, regions, keep, own), "the array of masks")
        other = as_array(call(function, samples, regions, keep, own + 1), "the array of masks")
        if not np.array_equal(masks, again):
            raise NotYet("the same seed gives other masks each time. Draw from a generator of it.")
        if np.array_equal(masks, other):
            raise NotYet("another seed gives the same masks. Is a seed fixed inside?")
    for keep in (0.0, 1.0):
        masks = as_array(call(function, 4, 3, keep, seed), "the array of masks")
        _check_zeros_and_ones(masks, (4, 3))
        if masks[0].min() == 0 or (masks[1:] != keep).any():
            raise NotYet(f"with keep={keep} the masks are not as they should be.")
    well_done("Your masks are drawn as they should be.")


def _check_zeros_and_ones(masks, shape):
    if masks.shape == shape[::-1] != shape:
        raise NotYet("rows and columns of the masks are swapped: a row is a sample.")
    if masks.shape != shape:
        raise NotYet(f"the masks have shape {masks.shape}, and it should be {shape}.")
    if not np.isin(masks, (0, 1)).all():
        raise NotYet("the masks should hold zeros and ones and nothing else.")


def _check_independent(rest, keep):
    """Raise NotYet unless each region of each sample is drawn for itself."""
    spread, expected = rest.mean(1).std(), (keep * (1 - keep) / rest.shape[1]) ** 0.5
    if spread < 0.5 * expected:
        raise NotYet(
            "every sample shows the same number of regions. Draw each region for itself, so that "
            "the number varies."
        )
    if spread > 2 * expected or len(np.unique(rest, axis=0)) < 0.5 * len(rest):
        raise NotYet("regions are shown or hidden together. Draw each region for itself.")


def outside_means(function, *, seed=0):
    """Check the mean colour of what lies outside of each superpixel."""
    rng = np.random.default_rng(seed)
    for size, count in (((9, 12, 3), 5), ((10, 7, 1), 4)):
        image, segments = _segmented(rng, size, count)
        inside = np.stack([image[segments == k].mean(0, dtype=float) for k in range(count)])
        right = np.stack([image[segments != k].mean(0, dtype=float) for k in range(count)])
        whole = image.mean((0, 1), dtype=float)
        ones = np.ones((count, 1))
        compare(
            call(function, image, segments),
            right,
            what="the array of mean colours",
            axes=TABLE,
            mistakes={
                "This is each superpixel's own mean colour. Take the mean of all other "
                "pixels.": inside,
                "This is the mean colour of the whole image. Leave the superpixel's own pixels "
                "out.": ones * whole,
                "You take the mean of the other superpixels' means. Every pixel should count the "
                "same, and superpixels differ in size.": (inside.sum(0) - inside) / (count - 1),
                "You divide by the number of all pixels. Divide by that of the pixels "
                "outside.": right
                * (1 - np.bincount(segments.ravel()) / segments.size)[:, np.newaxis],
                "This is one grey for all channels. Take the mean of each channel.": ones
                * right.mean(1, keepdims=True)
                * np.ones(size[2]),
                "This is one number for each superpixel. Take the mean of each "
                "channel.": right.mean(1),
                "You give an image. Give one colour for each superpixel.": right[segments],
            },
        )
    well_done("These are the colours of what lies outside.")


def perturb(function, *, seed=0):
    """Check the images in which superpixels are hidden."""
    rng = np.random.default_rng(seed)
    for size, count, samples in (((9, 12, 3), 5, 6), ((10, 7, 1), 4, 3)):
        image, segments = _segmented(rng, size, count)
        masks = rng.integers(0, 2, (samples, count))
        masks[0], masks[1] = 1, np.arange(count) % 2
        colours = rng.random((count, size[2])).astype(np.float32)
        shown = masks[:, segments, np.newaxis] == 1
        right = np.where(shown, image, colours[segments])
        mean = np.stack([image[segments == k].mean(0) for k in range(count)])
        compare(
            call(function, image, segments, masks, colours),
            right,
            what="the array of images",
            axes=IMAGE,
            mistakes={
                "You hide what the mask shows, and show what it hides: 1 means shown.": np.where(
                    shown, colours[segments], image
                ),
                "Hidden superpixels are black. Give each of them its colour.": np.where(
                    shown, image, 0
                ),
                "Hidden superpixels have their own mean colour. Give each of them the colour that "
                "came with the call.": np.where(shown, image, mean[segments]),
                "All hidden superpixels have the colour of the first. Each has its own.": np.where(
                    shown, image, colours[0]
                ),
                "All hidden superpixels have one colour. Each has its own.": np.where(
                    shown, image, colours.mean(0)
                ),
                "You give one image. Give one for each row of the masks.": right[0],
                "All images are hidden by the last mask. Do you write to one and the same "
                "array?": np.broadcast_to(right[-1], right.shape),
                "Each image keeps what the ones before it have hidden. Begin with a fresh copy for "
                "each.": _piled_up(image, segments, masks, colours),
            },
        )
    well_done("Your images hide what the masks hide.")


def _segmented(rng, size, count):
    """An image whose colours differ from superpixel to superpixel, and superpixels of all sizes."""
    share = np.arange(1, count + 1) ** 2.0
    labels = rng.choice(count, size[0] * size[1], p=share / share.sum())
    labels[: 2 * count] = np.repeat(np.arange(count), 2)
    segments = np.sort(labels).reshape(size[:2]) if rng.random() < 0.5 else labels.reshape(size[:2])
    image = 0.3 * rng.random(size) + 0.7 * rng.random((count, size[2]))[segments]
    return image.astype(np.float32), segments


def _piled_up(image, segments, masks, colours):
    found, one = [], image.copy()
    for mask in masks:
        hidden = mask[segments] == 0
        one[hidden] = colours[segments][hidden]
        found.append(one.copy())
    return np.stack(found)


def proximity(function, *, seed=0):
    """Check the weights of samples by the cosine kernel on pixels."""
    rng = np.random.default_rng(seed)
    for samples, regions, width in ((8, 6, 0.25), (12, 9, 0.6)):
        sizes = rng.integers(5, 200, regions)
        masks = rng.integers(0, 2, (samples, regions))
        masks[0], masks[1], masks[2:, 0] = 1, np.arange(regions) % 2, 1
        share = masks @ sizes / sizes.sum()
        distance = 1 - np.sqrt(share)
        by_count = 1 - np.sqrt(masks.mean(1))
        squares = 1 - np.sqrt(masks @ sizes.astype(float) ** 2 / np.sum(sizes.astype(float) ** 2))
        with np.errstate(all="ignore"):
            yours = as_array(call(function, masks, sizes, width), "the array of weights")
        compare(
            yours,
            np.exp(-((distance / width) ** 2)),
            what="the array of weights",
            mistakes={
                "You count superpixels, as the chapter does. Here a superpixel counts by its "
                "pixels.": np.exp(-((by_count / width) ** 2)),
                "You take the chapter's formula, with a square root around the exponential. Here "
                "there is none.": np.exp(-((distance / width) ** 2) / 2),
                "That is the chapter's formula on superpixels. Here pixels count, and there is no "
                "square root around the exponential.": np.exp(-((by_count / width) ** 2) / 2),
                "Your distance is 1 minus the share that is shown. The cosine is the square root "
                "of the share.": np.exp(-(((1 - share) / width) ** 2)),
                "You put the cosine into the kernel. The distance is 1 minus the cosine.": np.exp(
                    -(share / width**2)
                ),
                "You do not square the distance.": np.exp(-distance / width**2),
                "You square neither the distance nor the width.": np.exp(-distance / width),
                "You do not square the width.": np.exp(-(distance**2) / width),
                "This is the distance. The kernel turns it into a weight.": distance,
                "This is the cosine. The kernel turns its distance into a weight.": 1 - distance,
                "A superpixel counts by the square of its pixels. Write both images as rows with "
                "an entry for each pixel, and take the cosine of those.": np.exp(
                    -((squares / width) ** 2)
                ),
                "Far samples weigh more than near ones. Look at the sign.": np.exp(
                    (distance / width) ** 2
                ),
            },
        )
    well_done("Near samples weigh more, as they should.")


def proximity_of_nothing(function, *, seed=0):
    """Check the weight of a sample that hides everything, which has no cosine."""
    rng = np.random.default_rng(seed)
    masks, sizes = np.eye(4, 5, k=-1, dtype=int), rng.integers(5, 90, 5)
    share = masks @ sizes / sizes.sum()
    with np.errstate(all="ignore"):
        yours = as_array(call(function, masks, sizes, 0.8), "the array of weights")
    if yours.shape == (4,) and np.isfinite(yours[1:]).all() and not np.isfinite(yours[0]):
        raise NotYet(
            "a sample that hides everything gets no number: you divide by zero. It is as far away "
            "as can be, at distance 1."
        )
    right = np.exp(-(((1 - np.sqrt(share)) / 0.8) ** 2))
    compare(yours, right, what="the array of weights where little or nothing is shown")
    well_done("It holds for a sample that shows nothing, too.")


def top_regions(function, *, seed=0):
    """Check the mask of the superpixels with the largest positive weights."""
    rng = np.random.default_rng(seed)
    for size, count, k, positive in (((9, 12), 8, 3, 5), ((12, 7), 9, 4, 2)):
        _, segments = _segmented(rng, (*size, 1), count)
        weights = -rng.uniform(0.1, 5, count)
        weights[:positive] = rng.uniform(0.1, 2, positive)
        weights[0], weights[-1] = 5.5, -6  # the largest by their absolute values
        rng.shuffle(weights)
        order = np.argsort(-weights)
        right = np.isin(segments, order[: min(k, positive)])
        sizes = np.bincount(segments.ravel())
        compare(
            call(function, weights, segments, k),
            right,
            what="the mask",
            mistakes={
                "You take the largest absolute values. A negative weight speaks against the "
                "class.": np.isin(segments, np.argsort(-np.abs(weights))[:k]),
                "You take the smallest weights. `argsort` begins with them.": np.isin(
                    segments, order[-k:]
                ),
                "You fill up with negative weights where fewer are positive. They speak against "
                "the class.": np.isin(segments, order[:k]),
                "You take one too many.": np.isin(segments, order[: k + 1]),
                "You take one too few.": np.isin(segments, order[: min(k, positive) - 1]),
                "You take every superpixel with a positive weight. Take the largest k.": np.isin(
                    segments, order[:positive]
                ),
                "You give the largest superpixels. Go by their weights.": np.isin(
                    segments, np.argsort(-sizes)[:k]
                ),
                "Your mask is True where it should be False.": ~right,
                "You give the weights of the superpixels. Give a mask, True or False.": np.where(
                    right, weights[segments], 0
                ),
            },
        )
    well_done("Your mask shows the superpixels that speak most for the class.")


def share_on(function, *, seed=0):
    """Check the share of a mask that lies on the truth."""
    rng = np.random.default_rng(seed)
    for size, chance in (((8, 11), 0.3), ((12, 6), 0.6)):
        mask, truth = rng.random(size) < chance, rng.random(size) < 0.4
        both = np.count_nonzero(mask & truth)
        compare(
            call(function, mask, truth),
            both / mask.sum(),
            what="the share",
            mistakes={
                "This is the share of the truth that is in the mask. Asked is the share of the "
                "mask that is on the truth.": both / truth.sum(),
                "This is the intersection over the union. Divide by the mask.": both
                / np.count_nonzero(mask | truth),
                "You divide by all pixels. Divide by those of the mask.": both / mask.size,
                "This is how many pixels lie on the truth. Divide by those of the mask.": both,
                "This is the share of pixels where the two agree. Look at the mask's pixels "
                "only.": np.mean(mask == truth),
            },
        )
    with np.errstate(all="ignore"):
        empty = as_array(call(function, np.zeros_like(mask), truth), "the share of an empty mask")
    if empty.shape != () or empty != 0:
        raise NotYet("the share of an empty mask should be 0: nothing of it lies on the truth.")
    well_done("This is the share of the mask on the truth.")


def stability(function, *, seed=0):
    """Check the mean overlap of the top superpixels over pairs of seeds."""
    rng = np.random.default_rng(seed)
    for seeds, regions, k in ((range(4), 12, 4), ([3, 11, 8, 20, 5], 9, 3)):
        base, noise, right, mistakes = _runs(rng, seeds, regions, k)
        asked = []

        def explain(one, base=base, noise=noise, asked=asked):
            asked.append(int(one))
            return base + noise[int(one)]

        yours = as_array(call(function, explain, seeds, k), "the stability")
        if len(set(asked)) == 1:
            raise NotYet("you explain with one and the same seed each time.")
        if set(asked) != set(seeds):
            raise NotYet("you do not explain with the seeds that came with the call.")
        compare(yours, right, what="the stability", mistakes=mistakes)
    well_done("This is how far the seeds agree.")


def _runs(rng, seeds, regions, k):
    """Weights that seeds give, their stability, and mistakes that all give other numbers."""
    while True:
        base = rng.normal(0, 1, regions)
        base[0] = -9  # the largest by its absolute value
        noise = rng.normal(0, 0.8, (40, regions))
        runs = np.stack([base + noise[one] for one in seeds])
        tops = [set(np.argsort(-run)[:k]) for run in runs]
        large = [set(np.argsort(-np.abs(run))[:k]) for run in runs]
        small = [set(np.argsort(run)[:k]) for run in runs]
        pairs = list(combinations(tops, 2))
        n = len(tops)
        right = np.mean([_jaccard(a, b) for a, b in pairs])
        mistakes = {
            "You compare each run with itself as well. Take pairs of different seeds.": np.mean(
                [_jaccard(a, b) for a in tops for b in tops]
            ),
            "You compare runs with themselves as well. Take pairs of different seeds.": (
                right * n * (n - 1) / 2 + n
            )
            / (n * (n + 1) / 2),
            "You divide what two runs share by k. Divide by how many are in either of "
            "them.": np.mean([len(a & b) / k for a, b in pairs]),
            "You take what all runs have in common. Take each pair, and then the mean.": len(
                set.intersection(*tops)
            )
            / len(set.union(*tops)),
            "You compare each run with the next one only. Take all pairs.": np.mean(
                [_jaccard(a, b) for a, b in pairwise(tops)]
            ),
            "You compare each run with the first one only. Take all pairs.": np.mean(
                [_jaccard(tops[0], b) for b in tops[1:]]
            ),
            "You take the largest absolute values. Take the largest weights.": np.mean(
                [_jaccard(a, b) for a, b in combinations(large, 2)]
            ),
            "You take the smallest weights. `argsort` begins with them.": np.mean(
                [_jaccard(a, b) for a, b in combinations(small, 2)]
            ),
            "You add up the pairs. Take their mean.": right * len(pairs),
            "This is how much the runs differ. Asked is how much they agree.": 1 - right,
        }
        if np.diff(np.sort([right, *mistakes.values()])).min() > 1e-3:
            return base, noise, right, mistakes


def _jaccard(one, other):
    return len(one & other) / len(one | other)


def experiment(value, suspect_kind, suspect_part):
    """Check the two shares of an experiment, whatever the answer that it is made for.

    How many of 40 new mushrooms of the kind are read as it, with nothing about them and with the
    one thing.
    """
    one_of(suspect_kind, labs.MUSHROOMS, "suspect_kind")
    one_of(suspect_part, labs.MEADOW_PARTS, "suspect_part")
    if suspect_part in labs.MEADOW_PARTS[:2]:
        raise NotYet(
            f"there is a {suspect_part} in every drawing. Look for what should not matter."
        )
    kind, things = labs.MUSHROOMS.index(suspect_kind), np.zeros((40, 4), bool)
    shares = []
    for there in (False, True):
        things[:, labs.MEADOW_PARTS.index(suspect_part) - 2] = there
        images = labs.draw_meadows(np.full(40, kind), things, seed=5).images
        shares.append(np.mean(np.asarray(_network()(images)).argmax(1) == kind))
    names = ["the share that is read with nothing about it", "the share that is read with the part"]
    evidence(value, shares, what="experiment", names=names)


def _network():
    return _of_variant(labs.variant())


@cache
def _of_variant(variant):
    return labs.meadow_network()


def answer_is(value, keys):
    """Check an answer against the key of this variant, which stands in the hidden tests only."""
    right = keys[labs.member(len(keys))]
    if value is None or value is Ellipsis or str(value) != right:
        raise NotYet("this is not what the network goes by.")
    well_done("This is what the network goes by.")
