"""Checks of the lab on occlusion: the maps of a patch that moves, which a loop has to make."""

import numpy as np

from course_utils.labs._engine import NotYet, as_array, call, compare, well_done


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
    corners = corners_of(size, shape.shape, stride)
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
    corners = corners_of((rows, columns), shape.shape, stride)
    short = [(r, c) for r, c in corners if r < rows - high and c < columns - wide]
    cut = [
        (row, column)
        for row in range(0, rows - high + stride, stride)
        for column in range(0, columns - wide + stride, stride)
    ]
    found = {
        "You leave out the last place of each row and column. Where does `range` end?": short,
        "You have patches that are cut off at the edge. Here only whole ones count.": cut,
        "The stride has no effect on your map.": corners_of((rows, columns), shape.shape, 1),
    }
    maps = {
        sentence: _map_at(score, image, fill, shape, places)
        for sentence, places in found.items()
        if places != corners
    }
    if high != wide:
        lying = corners_of((rows, columns), (wide, high), stride)
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


def keep_only(function, *, seed=0):
    """Check the map of what each patch gives when all else is covered."""
    rng = np.random.default_rng(seed)
    for size, patch, stride in (((12, 12, 1), 4, 2), ((13, 15, 3), 5, 3)):
        image, fill = rng.random((2, *size)).astype(np.float32)
        score = _score(rng, size)
        corners = corners_of(size, (patch, patch), stride)
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


def corners_of(size, patch, stride):
    """The upper left corners of a patch that lies in the image as a whole, in their order."""
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
