"""Occlusion and RISE: cover a part of the image, and watch what becomes of the score."""

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from course_utils._arrays import check_whole
from course_utils._masks import enlarged, enlarging, shown_through
from course_utils._partial import partial_pass
from course_utils._scores import forward, of_target, score_model
from course_utils._shared import check_fill, check_images, check_targets


def iter_occlusion(image, patch=14, stride=None, fill=0.0):
    """Yield (row, column, occluded image) for each place of a patch that moves over `image`.

    Parameters
    ----------
    image : array (H, W, C)
    patch : int
        Height and width of the patch, in pixels.
    stride : int, optional
        How far it moves, in pixels; `patch` if not given. The last patch of a row or column is
        cut off at the image's edge.
    fill : float, array (C,) or array (H, W, C)
        What covers the image: one value, a colour, or another image.

    Raises
    ------
    ValueError
        If the patch is larger than the image, or the stride larger than the patch, which would
        leave gaps.

    References
    ----------
    Zeiler and Fergus, Visualizing and Understanding Convolutional Networks (2014), section 4.2.
    """
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(f"image must have shape (height, width, channels), got {image.shape}.")
    fill = check_fill(fill, image.shape)
    if (fill.astype(image.dtype) != fill).any():
        raise ValueError(
            f"the image holds {image.dtype}, which the fill does not fit: "
            "pass it as image.astype(float)."
        )
    for row, column in patch_places(image.shape, patch, stride):
        occluded = image.copy()
        _cover([occluded], fill, [(row, column)], patch)
        yield row, column, occluded


def occlusion_map(
    model,
    images,
    targets,
    *,
    patch=14,
    stride=None,
    fill=0.0,
    score="probability",
    batch_size=64,
    progress=False,
):
    """Return how far the score of the target drops where a part of the image is covered.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class to explain, for all images or for each.
    patch, stride, fill
        As in `iter_occlusion`.
    score : "probability" or "logit"
        Which score to watch; "probability" is the output as it is, also of a network without a
        softmax or sigmoid at its end.
    batch_size : int
        Occluded images that are in memory at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    float32 (N, H, W)
        The drop of the score, averaged over the patches that cover a pixel: positive where the
        image speaks for the target, negative where it speaks against it.

    Raises
    ------
    ValueError
        If an argument does not fit.

    Notes
    -----
    Layers that look at their neighbourhood only, from convolutions to additions of branches,
    compute again what lies within reach of the patch; the map is the same to 1e-5. From where
    everything does, or a layer looks at the whole map, the network runs on as usual. A network
    that saves less than a tenth of its multiplications so runs as a whole for every place.

    References
    ----------
    Zeiler and Fergus, Visualizing and Understanding Convolutional Networks (2014), section 4.2.
    """
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    image_shape = images.shape[1:]
    fill = check_fill(fill, image_shape, model=model)
    check_whole("batch_size", batch_size, 1)
    stride = patch if stride is None else stride
    places = patch_places(image_shape, patch, stride)
    scores = score_model(model, score)
    heatmaps = np.zeros(images.shape[:3], np.float32)
    covers = np.zeros(images.shape[1:3], np.float32)
    for row, column in places:
        covers[row : row + patch, column : column + patch] += 1
    batches = [places[start : start + batch_size] for start in range(0, len(places), batch_size)]
    occlude = partial_pass(scores, image_shape, patch, stride) or _whole_pass(scores, patch)
    bar = tqdm(total=len(images) * len(places), disable=not progress, unit="image")
    for n, image in enumerate(images):
        outputs = occlude(image, fill, batches)
        whole = of_target(next(outputs), targets[n : n + 1], score)
        for some, found in zip(batches, outputs, strict=True):
            left = of_target(found, np.full(len(some), targets[n]), score)
            for (row, column), drop in zip(some, whole - left, strict=True):
                heatmaps[n, row : row + patch, column : column + patch] += drop
            bar.update(len(some))
    bar.close()
    return heatmaps / covers


def _whole_pass(model, patch):
    """Return what `partial_pass` does, for any model: it runs for every place as a whole."""
    run = forward(model)

    def occlude(image, fill, batches):
        # Covered and uncovered again: it takes longer to get new memory for every batch, or to
        # hand one over to TensorFlow. The last copy is never covered and rides in the first
        # batch: a pass of its own costs as much as several images of a batch.
        most = max(map(len, batches))
        copies, tensor = _one_memory((most + 1, *image.shape))
        copies[:] = image
        for number, places in enumerate(batches):
            _cover(copies, fill, places, patch)
            found = run(tensor[: len(places) + (number == 0)]).numpy()
            _cover(copies, image, places, patch)
            if number == 0:
                yield found[-1:]
            yield found[: len(places)]

    return occlude


def _one_memory(shape):
    """Return a float32 array and the tensor that is the same memory: it holds what is written."""
    size = np.prod(shape)
    room = np.empty(size + 16, np.float32)
    first = -room.ctypes.data % 64 // 4  # TensorFlow reads from where 64 divides the address
    array = room[first : first + size].reshape(shape)
    return array, tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _cover(images, fill, places, patch):
    """Cover the patch at each place in an image of its own (H, W, C) with that of the fill."""
    for image, (row, column) in zip(images, places, strict=False):
        covered = np.s_[row : row + patch, column : column + patch]
        image[covered] = fill[covered]


def patch_places(shape, patch, stride):
    """The upper left corners of the patches that together cover an image, as (row, column)."""
    stride = patch if stride is None else stride
    check_whole("patch", patch, 1)
    check_whole("stride", stride, 1)
    if patch > min(shape[:2]):
        raise ValueError(f"a patch of {patch} pixels is larger than the image, {shape[:2]}.")
    if stride > patch:
        raise ValueError(f"a stride of {stride} leaves gaps between patches of {patch} pixels.")
    rows, columns = (range(0, size - patch + stride, stride) for size in shape[:2])
    return [(row, column) for row in rows for column in columns]


def rise_map(
    model,
    images,
    targets,
    *,
    samples=1000,
    cells=7,
    shown=0.5,
    fill=0.0,
    score="probability",
    seed=0,
    batch_size=64,
    progress=False,
):
    """Return the mean score of the random masks that show a pixel (RISE).

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The class to explain, for all images or for each.
    samples : int
        How many masks; the paper takes 4,000 to 8,000.
    cells : int
        A mask is a grid of `cells` × `cells` places, each shown or hidden, enlarged by linear
        interpolation to one cell more than the image and cut to its size at a random offset.
    shown : float
        The probability that a cell is shown.
    fill : float, array (C,) or array (H, W, C)
        What hides the image: one value, a colour, or another image.
    score : "probability" or "logit"
        Which score to watch; "probability" is the output as it is, also of a network without a
        softmax or sigmoid at its end.
    seed : int
        Of the masks, which are the same for every image.
    batch_size : int
        Masks and masked images that are in memory at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    float32 (N, H, W)
        The sum of score times mask, divided by `samples` and `shown`. It estimates the mean score
        where a pixel is shown; only its differences between pixels tell something.

    Raises
    ------
    ValueError
        If an argument does not fit.

    References
    ----------
    Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models
    (2018).
    """
    images = check_images(model, images)
    targets = check_targets(model, targets, len(images))
    fill = check_fill(fill, images.shape[1:], model=model)
    check_whole("samples", samples, 1)
    check_whole("cells", cells, 1, min(images.shape[1:3]))
    check_whole("seed", seed, 0)
    check_whole("batch_size", batch_size, 1)
    if not np.isscalar(shown) or isinstance(shown, str) or not 0 < shown <= 1:
        raise ValueError(f"shown must be a probability, above 0 and at most 1, got {shown!r}.")
    run = forward(score_model(model, score))
    rng = np.random.default_rng(seed)
    heatmaps = np.zeros(images.shape[:3])
    batch_size = min(batch_size, samples)
    bar = tqdm(total=len(images) * samples, disable=not progress, unit="image")
    for start in range(0, samples, batch_size):
        # shown_through is compiled for each number of masks: with more than needed, there is one.
        masks = _random_masks(rng, batch_size, images.shape[1:3], cells, shown)
        count = min(batch_size, samples - start)
        for heatmap, image, target in zip(heatmaps, images, targets, strict=True):
            outputs = run(shown_through(masks, image, fill)[:count]).numpy()
            scores = of_target(outputs, np.full(count, target), score)
            heatmap += np.tensordot(scores, masks[:count], 1)
            bar.update(count)
    bar.close()
    return (heatmaps / (samples * shown)).astype(np.float32)


def _random_masks(rng, count, size, cells, shown):
    """RISE's masks, float32 (count, H, W)."""
    # All that a mask needs in a row, so that batches of any size draw the same masks.
    draws = rng.random((count, cells * cells + 2), np.float32)
    grids = (draws[:, 2:] < shown).astype(np.float32).reshape(count, cells, cells)
    stretched = []
    for axis, length in enumerate(size):
        cell = -(-length // cells)
        first = (draws[:, axis] * cell).astype(int)
        pixels = first[:, np.newaxis] + np.arange(length)
        stretched.append(enlarging(cells, (cells + 1) * cell)[pixels])
    return enlarged(stretched[0], grids, stretched[1])
