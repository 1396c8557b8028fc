"""Checks of the lab on occlusion."""

from functools import cache

import numpy as np

from course_utils import labs
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
from course_utils.labs.occlusion.checks_of_maps import corners_of
from course_utils.labs.occlusion.checks_of_maps import keep_only as keep_only
from course_utils.labs.occlusion.checks_of_maps import shape_map as shape_map
from course_utils.labs.occlusion.checks_of_maps import (
    shape_map_of_any_shape as shape_map_of_any_shape,
)
from course_utils.models import logit_model

BLOCK = 4
"""Height and width of the blocks that the scanners lose, in pixels."""


def count_places(function, *, seed=0):
    """Check the number of whole places of a patch."""
    for image, patch, stride in _sizes(seed):
        (rows, columns), (high, wide) = image, patch
        down, across = (rows - high) // stride + 1, (columns - wide) // stride + 1
        cut = -(-(rows - high) // stride) + 1, -(-(columns - wide) // stride) + 1
        swapped = ((rows - wide) // stride + 1) * ((columns - high) // stride + 1)
        compare(
            call(function, image, patch, stride),
            down * across,
            what=f"the count for an image of {image}, a patch of {patch} and a stride of {stride}",
            mistakes={
                "You leave out the last place of each row and column: of 5 pixels, a patch of 3 "
                "has more than 5 - 3 places at a stride of 1.": (down - 1) * (across - 1),
                "You count places where the patch is cut off at the edge. Here only those count "
                "where it lies in the image as a whole.": cut[0] * cut[1],
                "Height and width of the patch are swapped.": swapped,
                "The stride has no effect on your count.": (rows - high + 1) * (columns - wide + 1),
                "You count the patch's steps in one direction only.": down,
                "You add the steps down and across. Each row of places has all of its "
                "columns.": down + across,
            },
        )
    well_done("You count the places of a patch.")


def count_uncovered(function, *, seed=0):
    """Check the number of pixels that no place covers."""
    for image, patch, stride in sorted(_sizes(seed), key=lambda size: size[2] > min(size[1])):
        seen = np.zeros(image, bool)
        for row, column in corners_of(image, patch, stride):
            seen[row : row + patch[0], column : column + patch[1]] = True
        gaps = stride > min(patch)
        ends = [(n - p) // stride * stride + p for n, p in zip(image, patch, strict=True)]
        below, beside = image[0] - ends[0], image[1] - ends[1]
        mistakes = {
            "This is right only where patches touch. A stride larger than the patch leaves gaps "
            "between them as well.": seen.size - ends[0] * ends[1],
        }
        mistakes = (mistakes if gaps else {}) | {
            "These are the pixels that some patch covers. Count the others.": seen.sum(),
            "You count the corner twice where the strip below and the strip to the right "
            "meet.": below * image[1] + beside * image[0],
            "The strip below and the strip to the right also meet in the corner, and you have left "
            "that out.": below * ends[1] + beside * ends[0],
        }
        compare(
            call(function, image, patch, stride),
            np.count_nonzero(~seen),
            what=f"the count for an image of {image}, a patch of {patch} and a stride of {stride}",
            mistakes=mistakes,
        )
    well_done("You count the pixels that no patch reaches.")


def _sizes(seed):
    """Images, patches and strides that tell mistakes apart: two that overlap, two with gaps."""
    rng = np.random.default_rng(seed)
    a, b, c, d = rng.integers(0, 3, 4) * 60  # a multiple of the strides, so that strips remain
    return [
        ((28, 28), (7, 7), 7),
        ((31 + a, 47 + b), (5, 9), 4),
        ((26 + c, 38 + d), (3, 6), 5),
        ((23 + d, 30 + a), (2, 3), 6),
    ]


def log_odds(function, *, seed=0):
    """Check the log-odds of scores of an ordinary size."""
    rng = np.random.default_rng(seed)
    for count, classes in ((5, 10), (8, 4)):
        logits = rng.normal(0, 3, (count, classes)).astype(np.float32)
        target = int(rng.integers(1, classes))
        others = np.delete(logits.astype(float), target, 1)
        own = logits[:, target].astype(float)
        p = np.exp(own) / np.exp(logits.astype(float)).sum(1)
        right = own - np.log(np.exp(others).sum(1))
        with np.errstate(all="ignore"):
            yours = call(function, logits, target)
        compare(
            yours,
            right,
            what="the log-odds",
            mistakes={
                "This is the logit alone. It does not see what the other classes gain.": own,
                "This is the probability. Take the odds of it, and their logarithm.": p,
                "This is the logarithm of the probability, not of the odds p / (1 - p).": np.log(p),
                "These are the odds. Take their logarithm.": p / (1 - p),
                "This is the lead over the best of the others. All of the others make up "
                "1 - p.": own - others.max(1),
                "This is the lead over the mean of the others' logits. Probabilities add up, "
                "logits do not.": own - others.mean(1),
                "You give the log-odds of every class. Give those of the target.": logits
                - np.log(np.exp(logits.astype(float)).sum(1, keepdims=True) - np.exp(logits)),
                "The logarithm is to base 10. Take the natural one, np.log.": right / np.log(10),
                "The logarithm is to base 2. Take the natural one, np.log.": right / np.log(2),
            },
            tolerance=1e-3,
        )
    well_done("These are the log-odds of the target.")


def log_odds_of_the_sure(function, *, seed=0):
    """Check the log-odds where a network is so sure that p / (1 - p) is out of reach."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (9, 10)).astype(np.float32)
    logits[:6, 2] += np.array([40, 400, 4000, -40, -400, -4000], np.float32)
    logits[6:, 7] += np.array([100, 1000, 4000], np.float32)  # sure of another class
    with np.errstate(all="ignore"):
        yours = as_array(call(function, logits, 2), "the log-odds of a network that is very sure")
    if yours.shape == (9,) and np.isfinite(yours[:6]).all() and not np.isfinite(yours).all():
        raise NotYet(
            "where the network is very sure of another class, your log-odds are infinite or NaN: "
            "exp overflows. Take the largest of the others' logits out of the sum first."
        )
    if yours.shape == (9,) and not np.isfinite(yours).all():
        raise NotYet(
            "where the network is very sure, your log-odds are infinite or NaN: 1 - p is rounded "
            "to 0, or exp overflows. They can be had from the logits without computing p."
        )
    others = np.delete(logits.astype(float), 2, 1)
    top = others.max(1)
    right = logits[:, 2] - top - np.log(np.exp(others - top[:, np.newaxis]).sum(1))
    if _is_cut(yours, right):
        raise NotYet(
            "where the network is very sure, your log-odds stop growing: the probability is cut "
            "off near 0 or 1. They can be had from the logits without computing it."
        )
    what = "the array of log-odds of a network that is very sure"
    alone = {"This is the logit alone. It does not see what the others gain.": logits[:, 2]}
    compare(yours, right, what=what, mistakes=alone)
    compare(yours[[0, 3, 6]], right[[0, 3, 6]], what=what)  # not hidden by the large ones
    well_done("They hold for a network that is very sure, too.")


def _is_cut(yours, right):
    """Whether values have the right sign and are too small, as clipped probabilities give."""
    return yours.shape == right.shape and bool(
        np.all(np.sign(yours) == np.sign(right)) and np.abs(yours).max() < 200
    )


def mean_of_others(function, *, seed=0):
    """Check the mean image of all classes but the target."""
    rng = np.random.default_rng(seed)
    for size, classes in (((6, 6, 1), 3), ((5, 8, 3), 4)):
        labels = np.r_[np.arange(classes), rng.choice(classes, 30, p=_uneven(classes))]
        images = rng.random((len(labels), *size)).astype(np.float32)
        images += labels[:, None, None, None] * rng.random(size, np.float32)
        target = int(rng.integers(0, classes))
        others = images[labels != target]
        means = [images[labels == k].mean(0) for k in range(classes) if k != target]
        compare(
            call(function, images, labels, target),
            others.mean(0, dtype=float),
            what="the mean image",
            axes=IMAGE,
            mistakes={
                "This is the mean of all images. Leave those of the target out.": images.mean(0),
                "This is the mean of the target's own images. Take that of all others.": images[
                    labels == target
                ].mean(0),
                "This is the mean of the classes' means. Every image should count the "
                "same.": np.mean(means, 0),
                "This is the median. Take the mean.": np.median(others, 0),
                "This is one number for all pixels. Take the mean for each pixel.": others.mean(),
                "This is one colour for all pixels. Take the mean for each pixel.": others.mean(
                    (0, 1, 2)
                ),
            },
        )
    well_done("This is the mean image of the other classes.")


def _uneven(classes):
    share = np.arange(1, classes + 1) ** 2.0
    return share / share.sum()


def experiment(value, suspect_class, suspect_place):
    """Check the two shares of an experiment, whatever the answer that it is made for.

    How many of the class's scans are read as it, as they are and with the block covered by the
    mean scan.
    """
    one_of(suspect_class, range(10), "suspect_class")
    row, column = _check_place(suspect_place)
    scans = labs.load_scans("first")
    covered = scans.images.copy()
    block = np.s_[:, row : row + BLOCK, column : column + BLOCK]
    covered[block] = scans.images.mean(0)[block[1:]]
    both = [_share_read(s, suspect_class) for s in (scans, labs.Scans(covered, scans.labels))]
    names = ["the share that is read as it is", "the share that is read with the block covered"]
    evidence(value, both, what="experiment", names=names)


def class_is(value, keys):
    """Check an answer against the key of this variant, which stands in the hidden tests only."""
    one_of(value, range(10), "suspect_class")
    if value != keys[labs.member(len(keys))][0]:
        raise NotYet("this is not the class that the network reads by a mark.")
    well_done("This is the class.")


def place_is(value, keys):
    """Check an answer against the key of this variant; one pixel off is allowed."""
    right = keys[labs.member(len(keys))][1]
    if np.abs(np.subtract(_check_place(value), right)).max() > 1:
        raise NotYet("this is not the block that the network reads, or not its upper left corner.")
    well_done("This is the block.")


def _check_place(value):
    """Row and column as whole numbers, or NotYet."""
    if value is None or value is Ellipsis:
        raise NotYet("suspect_place has no value yet. Put your answer in place of it.")
    place = as_array(value, "suspect_place")
    if place.shape != (2,) or (place != place.round()).any():
        raise NotYet("suspect_place should be two whole numbers, (row, column).")
    if (place < 0).any() or (place > 28 - BLOCK).any():
        raise NotYet(f"a block of {BLOCK} pixels at suspect_place does not lie in the scan.")
    return place.astype(int)


def _share_read(scans, label):
    some = scans.images[scans.labels == label]
    return np.mean(_logits(some).argmax(1) == label)


def _logits(images):
    return logit_model(_network())(np.float32(images)).numpy()


def _network():
    return _of_variant(labs.variant())


@cache
def _of_variant(variant):
    return labs.scan_network()


def transplant(function, *, seed=0):
    """Check images that carry a block of a donor."""
    rng = np.random.default_rng(seed)
    for shape, place, size in (((4, 9, 9, 1), (1, 5), (3, 3)), ((3, 10, 12, 3), (6, 2), (2, 5))):
        images = rng.random(shape).astype(np.float32)
        donor = rng.random(shape[1:]).astype(np.float32)
        (row, column), (high, wide) = place, size
        block = np.s_[row : row + high, column : column + wide]
        right, swapped, lying, corner = (images.copy() for _ in range(4))
        right[:, *block] = donor[block]
        turned = np.s_[column : column + high, row : row + wide]
        swapped[:, *turned] = donor[turned]
        flat = np.s_[row : row + wide, column : column + high]
        lying[:, *flat] = donor[flat]
        corner[:, *block] = donor[: min(high, shape[1]), :wide]
        inverse = np.broadcast_to(donor, shape).copy()
        inverse[:, *block] = images[:, *block]
        mean = images.copy()
        mean[:, *block] = donor[block].mean((0, 1))
        long = images.copy()
        longer = np.s_[row : row + high + 1, column : column + wide + 1]
        long[:, *longer] = donor[longer]
        one = np.concatenate([right[:1], images[1:]])
        compare(
            call(function, images, donor, place, size),
            right,
            what="the array of images",
            axes=IMAGE,
            mistakes={
                "The images come back as they were.": images,
                "Row and column of the place are swapped.": swapped,
                "Height and width of the block are swapped.": lying,
                "You take the donor's upper left corner. Take its block at the same place.": corner,
                "The other way round: put the donor's block into the images.": inverse,
                "You put in the block's mean. Put in its pixels.": mean,
                "Your block is one pixel too high and too wide. A slice ends before its "
                "stop.": long,
                "Only the first image gets the block. All should.": one,
                "You return only the block.": right[:, *block],
            },
        )
    well_done("You transplant a block, and leave the donor and the images as they are.")


def fill_cost(value, fill, suspect_class, suspect_place):
    """Check the mean costs of covering one's block, whatever it is: with one's fill, the mean."""
    one_of(suspect_class, range(10), "suspect_class")
    fills, place = (_check_fill(fill), None), _check_place(suspect_place)
    costs = [_cost(one, suspect_class, place) for one in fills]
    names = [f"the mean drop of the logit with {what}" for what in ("blind_fill", "the mean scan")]
    evidence(value, costs, what="fill_cost", names=names, tolerance=0.1)


def blind_fill(value, suspect_class, suspect_place, keys):
    """Check an answer by experiment: does covering the right block with it cost anything?"""
    fill, (label, place) = _check_fill(value), keys[labs.member(len(keys))]
    if suspect_class != label or np.abs(np.subtract(_check_place(suspect_place), place)).max() > 1:
        raise NotYet(
            "the block that this fill should acquit is not the one that the network reads."
        )
    if abs(_cost(fill, label, place)) > 0.1 * _cost(None, label, place):
        raise NotYet(
            "a map with this fill would not overlook the block. Which fill would put there what "
            "is there already?"
        )
    well_done("With this fill, a map acquits the block that the class hangs on.")


def _check_fill(value):
    if value is None or value is Ellipsis:
        raise NotYet("blind_fill has no value yet. Put your answer in place of it.")
    fill = as_array(value, "blind_fill")
    if fill.shape != () or not 0 <= fill <= 1:
        raise NotYet("blind_fill should be one number from 0 to 1.")
    return fill


def _cost(fill, label, place):
    """The mean drop of a class's logit when the block is covered by a fill, or the mean scan."""
    scans = labs.load_scans("first")
    some = scans.images[scans.labels == label]
    block = np.s_[:, place[0] : place[0] + BLOCK, place[1] : place[1] + BLOCK]
    covered = some.copy()
    covered[block] = scans.images.mean(0)[block[1:]] if fill is None else fill
    return np.mean((_logits(some) - _logits(covered))[:, label])
