"""An image in parts that are shown or hidden: the checks, what hides a part, and the scores."""

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from course_utils._scores import forward, of_target, score_model
from course_utils._shared import check_fill, check_images, check_targets


def check_image(model, image, target, many):
    """The image as float32 (H, W, C) and its target as int; `many` is the function for several."""
    image = np.asarray(image)
    if image.ndim != 3:
        hint = f" Explain one image at a time, or use {many}." if image.ndim == 4 else ""
        raise ValueError(
            f"image must have shape (height, width, channels), got {image.shape}.{hint}"
        )
    return check_images(model, image[np.newaxis])[0], check_targets(model, target, 1)[0]


def check_segments(segments, size):
    """Return `segments` as int64 (H, W) with labels 0, 1, 2, ..., or say what is wrong."""
    segments = np.asarray(segments)
    if segments.shape != size:
        raise ValueError(f"segments must have the image's size {size}, got {segments.shape}.")
    if segments.dtype.kind not in "iu":
        raise ValueError(f"segments must be whole numbers (labels), got {segments.dtype}.")
    labels = np.unique(segments)
    if not np.array_equal(labels, np.arange(len(labels))):
        raise ValueError(
            f"segments must be labelled 0, 1, 2, ... without gaps, got {len(labels)} labels from "
            f"{labels[0]} to {labels[-1]}. np.unique(segments, return_inverse=True)[1]"
            ".reshape(segments.shape) renumbers them."
        )
    return segments.astype(np.int64)


def fill_image(fill, image, segments, model):
    """What stands where a part is hidden, float32 (H, W, C): "mean" is each part's mean colour."""
    if isinstance(fill, str):
        if fill != "mean":
            raise ValueError(f'fill must be "mean", a number, a colour or an image, got {fill!r}.')
        labels = segments.ravel()
        sums = [np.bincount(labels, channel.ravel()) for channel in np.moveaxis(image, -1, 0)]
        means = np.stack(sums, axis=-1) / np.bincount(labels)[:, np.newaxis]
        return means.astype(np.float32)[segments]
    return check_fill(fill, image.shape, model=model)


def part_scores(model, image, target, shown, *, segments, fill, score, batch_size, progress):
    """Return the target's score of the image with each row's parts shown, float64 (rows,).

    `shown` is bool (rows, parts), `fill` float32 (H, W, C), as `fill_image` returns it; the rest
    is checked. No more than `batch_size` images are in memory at a time.
    """
    run = forward(score_model(model, score))
    batch_size = min(batch_size, len(shown))
    # _draw is compiled for each shape of its rows: filled up, they come in few shapes.
    rows = np.pad(shown, ((0, -len(shown) % batch_size), (0, -shown.shape[1] % 32)))
    picture = [tf.constant(array) for array in (segments, image, fill)]
    outputs = []
    bar = tqdm(total=len(shown), disable=not progress, unit="image")
    for start in range(0, len(shown), batch_size):
        drawn = _draw(rows[start : start + batch_size], *picture)
        outputs.append(run(drawn[: len(shown) - start]).numpy())
        bar.update(len(outputs[-1]))
    bar.close()
    scores = of_target(np.concatenate(outputs), np.repeat(target, len(shown)), score)
    return scores.astype(np.float64)


_PICTURE = tf.TensorSpec((None, None, None), tf.float32)


@tf.function(
    input_signature=[
        tf.TensorSpec((None, None), tf.bool),
        tf.TensorSpec((None, None), tf.int64),
        _PICTURE,
        _PICTURE,
    ],
    jit_compile=True,  # one pass over the pixels, eight times as fast as one for each operation
)
def _draw(shown, segments, image, fill):
    """The image with each row's hidden superpixels filled, float32 (rows, H, W, C)."""
    return tf.where(tf.gather(shown, segments, axis=1)[..., tf.newaxis], image, fill)
