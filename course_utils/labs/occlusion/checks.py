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
        for row, column in _corners(image, patch, stride):
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


def shape_map(function, *, seed=0):
    """Check the occlusion map of upright bars."""
    rng = np.random.default_rng(seed)
    for size, bar, stride in (((12, 12, 1), (6, 2), 1), ((11, 15, 1), (5, 3), 2)):
        _try_shape_map(function, rng, size, np.ones(bar, bool), stride)
    well_done("Your map of bars is right.")


def shape_map_of_any_shape(function, *, seed=0):
    """Check the occlusion map of patches that are no rectangles, on colour images."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:5, :5] - 2
    disc = row**2 + column**2 <= 4.5
    corner = np.zeros((4, 3), bool)
    corner[:, 0] = corner[-1] = True
    for size, shape, stride in (((13, 16, 3), disc, 2), ((14, 10, 3), corner, 1)):
        _try_shape_map(function, rng, size, shape, stride)
    well_done("It is right with patches of other shapes as well.")


def _try_shape_map(function, rng, size, shape, stride):
    image, fill = rng.random((2, *size)).astype(np.float32)
    score = _score(rng, size)
    corners = _corners(size, shape.shape, stride)
    right = _map_at(score, image, fill, shape, corners)
    yours = as_array(call(function, score, image, shape, stride, fill), "the map")
    bare = ~_covers(size, shape, corners).any(0)
    if yours.shape == right.shape and not np.isfinite(yours[bare]).all():
        raise NotYet("where no patch covers a pixel, your map is not a number. It should be 0.")
    mistakes = _other_aggregates(score, image, fill, shape, corners)
    mistakes |= _other_places(score, image, fill, shape, stride)
    if not shape.all():
        mistakes |= _rectangles(score, image, fill, shape, corners)
    compare(yours, right, what="the map", mistakes=mistakes, tolerance=1e-3)


def _other_aggregates(score, image, fill, shape, corners):
    """Sentences, and the maps of right places whose scores are put together wrongly."""
    covers = _covers(image.shape, shape, corners)
    whole = score(image[np.newaxis])[0]
    scores = score(np.where(covers[..., np.newaxis], fill, image))
    kept = score(np.where(covers[..., np.newaxis], image, fill))
    drops = whole - scores
    total = np.tensordot(drops, covers, 1)
    each = np.where(covers, drops[:, np.newaxis, np.newaxis], -np.inf)
    largest = np.where(covers.any(0), each.max(0), 0)
    last = np.zeros(image.shape[:2])
    for drop, cover in zip(drops, covers, strict=True):
        last[cover] = drop
    black = whole - score(np.where(covers[..., np.newaxis], 0, image))
    so_far = np.logical_or.accumulate(covers)
    piled = whole - score(np.where(so_far[..., np.newaxis], fill, image))
    return {
        "Your map has the drops for a fill of black: the fill of the call has no effect.": _over(
            black, covers
        ),
        "Each place is covered on top of those before it: the image is not restored in between. "
        "Begin with a fresh copy for each place.": _over(piled, covers),
        "Your map has the score that is left, not how far it drops from that of the whole "
        "image.": _over(scores, covers),
        "You add the drops up. Divide by the number of patches that cover a pixel, which is not "
        "the same for all.": total,
        "You divide by the number of all patches. Divide by how many cover the pixel.": total
        / len(corners),
        "You keep the largest drop of each pixel. Take the mean over the patches that cover "
        "it.": largest,
        "You keep the last drop that is written to each pixel. Take the mean over the patches "
        "that cover it.": last,
        "You take the absolute value of each drop. A negative one means something here.": _over(
            np.abs(drops), covers
        ),
        "You cover everything but the patch. Cover the patch.": _over(whole - kept, covers),
        "Under every patch you put the fill's upper left corner. Put the part of the fill that "
        "lies at the same place.": _map_at(score, image, fill, shape, corners, from_corner=True),
    }


def _other_places(score, image, fill, shape, stride):
    """Sentences, and the maps of patches that stand in other places than they should."""
    (rows, columns), (high, wide) = image.shape[:2], shape.shape
    corners = _corners((rows, columns), shape.shape, stride)
    short = [(r, c) for r, c in corners if r < rows - high and c < columns - wide]
    cut = [
        (row, column)
        for row in range(0, rows - high + stride, stride)
        for column in range(0, columns - wide + stride, stride)
    ]
    found = {
        "You leave out the last place of each row and column. Where does `range` end?": short,
        "You have patches that are cut off at the edge. Here only whole ones count.": cut,
        "The stride has no effect on your map.": _corners((rows, columns), shape.shape, 1),
    }
    maps = {
        sentence: _map_at(score, image, fill, shape, places)
        for sentence, places in found.items()
        if places != corners
    }
    if high != wide:
        lying = _corners((rows, columns), (wide, high), stride)
        sentence = "The shape lies on its side: its height and width are swapped."
        maps[sentence] = _map_at(score, image, fill, shape.T, lying)
    return maps


def _rectangles(score, image, fill, shape, corners):
    """Sentences, and the maps where the rectangle around a shape is taken for the shape."""
    covers = _covers(image.shape, shape, corners)
    box = _covers(image.shape, np.ones_like(shape), corners)
    whole = score(image[np.newaxis])[0]
    drops = whole - score(np.where(covers[..., np.newaxis], fill, image))
    in_box = whole - score(np.where(box[..., np.newaxis], fill, image))
    return {
        "You cover the whole rectangle around the shape. Cover only where the shape is "
        "True.": _over(in_box, covers),
        "You cover the whole rectangle around the shape, and write the drop to all of it. Both "
        "should happen only where the shape is True.": _over(in_box, box),
        "You cover the right pixels, but write the drop to the whole rectangle around the "
        "shape.": _over(drops, box),
        "You divide by the number of rectangles that cover a pixel. Divide by the number of "
        "shapes that do.": np.tensordot(drops, covers, 1) / np.maximum(box.sum(0), 1),
    }


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


def keep_only(function, *, seed=0):
    """Check the map of what each patch gives when all else is covered."""
    rng = np.random.default_rng(seed)
    for size, patch, stride in (((12, 12, 1), 4, 2), ((13, 15, 3), 5, 3)):
        image, fill = rng.random((2, *size)).astype(np.float32)
        score = _score(rng, size)
        corners = _corners(size, (patch, patch), stride)
        covers = _covers(size, np.ones((patch, patch), bool), corners)
        kept = score(np.where(covers[..., np.newaxis], image, fill))
        covered = score(np.where(covers[..., np.newaxis], fill, image))
        so_far = np.logical_or.accumulate(covers)
        piled = score(np.where(so_far[..., np.newaxis], image, fill))
        on_black = score(np.where(covers[..., np.newaxis], image, 0))
        black = score(np.zeros((1, *size)))[0]
        whole, bare = score(np.stack([image, fill]))
        yours = as_array(call(function, score, image, patch, stride, fill), "the map")
        if yours.shape == size[:2] and not np.isfinite(yours[~covers.any(0)]).all():
            raise NotYet("where no patch lies, your map is not a number. It should be 0.")
        compare(
            yours,
            _over(kept - bare, covers),
            what="the map",
            mistakes={
                "This is the score of what is kept. Subtract that of the fill alone.": _over(
                    kept, covers
                ),
                "You compare with the whole image. Compare with the fill alone, which is all "
                "that there is without the patch.": _over(kept - whole, covers),
                "You compare with the whole image, and backwards.": _over(whole - kept, covers),
                "This is ordinary occlusion: you cover the patch. Cover everything else.": _over(
                    whole - covered, covers
                ),
                "You cover the patch and compare with the fill. Keep the patch and cover "
                "everything else.": _over(covered - bare, covers),
                "You add the gains up. Take the mean over the patches that keep a "
                "pixel.": np.tensordot(kept - bare, covers, 1),
                "You compare with an image that is black. Compare with the fill alone.": _over(
                    kept - black, covers
                ),
                "Everything else is black: the fill of the call has no effect.": _over(
                    on_black - black, covers
                ),
                "Everything else is black, and it should be the fill.": _over(
                    on_black - bare, covers
                ),
                "Each place keeps what those before it have kept: the fill is not restored in "
                "between. Begin with a fresh copy for each place.": _over(piled - bare, covers),
            },
            tolerance=1e-3,
        )
    well_done("Your map says what each part gives when it is all that there is.")


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
    """Check the mean cost of covering one's block with one's fill, whatever they are."""
    one_of(suspect_class, range(10), "suspect_class")
    cost = _cost(_check_fill(fill), suspect_class, _check_place(suspect_place))
    evidence(value, cost, what="fill_cost", names=["the mean drop of the logit"], tolerance=0.1)


def blind_fill(value, keys):
    """Check an answer by experiment: does covering the block with this fill cost anything?"""
    fill, (label, place) = _check_fill(value), keys[labs.member(len(keys))]
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


def _corners(size, patch, stride):
    return [
        (row, column)
        for row in range(0, size[0] - patch[0] + 1, stride)
        for column in range(0, size[1] - patch[1] + 1, stride)
    ]


def _covers(size, shape, corners):
    """Which pixels a patch of a shape covers at each place, bool (places, H, W)."""
    high, wide = shape.shape
    covers = np.zeros((len(corners), size[0] + high, size[1] + wide), bool)
    for cover, (row, column) in zip(covers, corners, strict=True):
        cover[row : row + high, column : column + wide] = shape
    return covers[:, : size[0], : size[1]]


def _map_at(score, image, fill, shape, corners, *, from_corner=False):
    """The mean drop at these places; with the fill's upper left corner if that is the mistake."""
    covers = _covers(image.shape, shape, corners)
    copies = np.where(covers[..., np.newaxis], fill, image)
    if from_corner:
        for copy, cover, (row, column) in zip(copies, covers, corners, strict=True):
            copy[cover] = np.roll(fill, (row, column), (0, 1))[cover]
    return _over(score(image[np.newaxis])[0] - score(copies), covers)


def _over(values, covers):
    """The mean value of the patches that cover each pixel, or 0 where none does."""
    return np.tensordot(values, covers, 1) / np.maximum(covers.sum(0), 1)


def _score(rng, size):
    """A score that no sum over pixels gives, so that what is covered together matters."""
    first, second = rng.normal(size=(2, np.prod(size)))
    offset = rng.normal()

    def score(images):
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != size:
            raise ValueError(
                f"score takes images of shape (N, {', '.join(map(str, size))}), got {images.shape}."
            )
        flat = images.reshape(len(images), -1).astype(float)
        return offset + flat @ first + 0.5 * np.square(flat @ second) / len(second) ** 0.5

    return score
