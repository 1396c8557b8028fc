"""Checks of the lab on embeddings: the climb to a better image, and how rough an image is."""

import numpy as np
import tensorflow as tf

from course_utils.labs._engine import IMAGE, NotYet, as_array, call, compare, well_done


def ascent(function, *, seed=0, score="linear"):
    """``function(score, start, radius, steps, step_size)`` climbs within a ball around each start.

    `score` is "linear", whose best point is known; "curved", which is compared step by step; or
    "flat", which has no gradient for one of the images.
    """
    rng = np.random.default_rng(seed)
    for count, high, wide, radius in ((3, 5, 6, 1.5), (2, 8, 4, 0.7)):
        start = rng.normal(0.5, 1, (count, high, wide, 1)).astype(np.float32)
        weights = rng.normal(size=(high, wide, 1)).astype(np.float32)

        def linear(images, w=weights):
            return tf.reduce_sum(images * w, axis=[1, 2, 3]) + 3

        def curved(images, w=weights):
            return tf.reduce_sum(tf.sin(images * w) - 0.1 * images**2, axis=[1, 2, 3])

        if score == "linear":
            found = call(function, linear, start, radius, 20, 0.3)
            best = weights / np.linalg.norm(weights)
            right = start + radius * best
            mistakes = {
                "the ball lies around 0. Keep the image within the radius of its *start*.": (
                    _ascend(linear, start, radius, 20, 0.3, around=0)
                ),
                "the images walk down the gradient. Add it.": start - radius * best,
                "the images leave the ball: nothing brings them back.": start + 6 * best,
                "the gradient is not of length one for each image, or the radius is shared by all "
                "of them.": _ascend(linear, start, radius, 20, 0.3, each=False),
                "the images are clipped to 0..1; leave that out here.": np.clip(right, 0, 1),
                "the change is returned, not the image.": radius * best + 0 * start,
                "nothing has moved.": start,
            }
            options = {"what": "the image", "tolerance": 1e-3, "axes": IMAGE}
            compare(found, right, mistakes=mistakes, **options)
        else:
            climbs = curved
            steps, size = (4, radius / 9) if score == "curved" else (4, radius / 32)
            if score == "flat":
                # One image without a gradient, wherever it stands: its first pixel is 0.
                start[0, 0, 0] = 0

                def climbs(images, w=weights):
                    moves = tf.cast(images[:, 0, 0, 0] != 0, images.dtype)
                    return moves * tf.reduce_sum(images * w, axis=[1, 2, 3])

            found = call(function, climbs, start, radius, steps, size)
            if score == "flat" and np.isnan(as_array(found, "the image")[0]).any():
                raise NotYet(
                    "an image whose score has no gradient becomes NaN: its gradient has length 0. "
                    "It should stay where it is."
                )
            right = _ascend(climbs, start, radius, steps, size)
            mistakes = {
                "every image lands on the surface of the ball. One that is still inside must stay "
                "where it is; only what is outside is drawn back.": _ascend(
                    climbs, start, radius, steps, size, surface=True
                ),
                "the gradient is taken as it is. Divide it by its length, for each image.": _ascend(
                    climbs, start, radius, steps, size, unit=False
                ),
                "the gradient is divided by the length of all images' gradients together.": _ascend(
                    climbs, start, radius, steps, size, each=False
                ),
                "the gradient is divided by its root mean square, as in the chapter. Here it is "
                "divided by its length.": _ascend(
                    climbs, start, radius, steps, size * np.sqrt(high * wide)
                ),
                "the steps shrink. Here each has the same size.": _ascend(
                    climbs, start, radius, steps, size, shrink=True
                ),
                "one step too few is made.": _ascend(climbs, start, radius, steps - 1, size),
                "one step too many is made.": _ascend(climbs, start, radius, steps + 1, size),
                "the sign of the gradient is followed, not the gradient.": _ascend(
                    climbs, start, radius, steps, size, sign=True
                ),
                "the ball lies around 0. Keep the image within the radius of its *start*.": _ascend(
                    climbs, start, radius, steps, size, around=0
                ),
                "nothing has moved.": start,
            }
            options = {"what": "the image", "tolerance": 1e-3, "axes": IMAGE}
            compare(found, right, mistakes=mistakes, **options)
    said = {
        "linear": "a linear score: your images end where the formula says they must",
        "curved": "a curved score: every step is right",
        "flat": "an image without a gradient stays where it is",
    }
    well_done(f"{said[score]}.")


def _ascend(
    score, start, radius, steps, step_size, *, around=1, each=True, unit=True, surface=False,
    shrink=False, sign=False,
):  # fmt: skip
    """Gradient ascent within a ball around each start; the options make mistakes."""
    axes = [1, 2, 3] if each else None
    middle = tf.constant(around * start)
    images = tf.constant(start)
    for step in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(images)
            value = score(images)
        slope = tape.gradient(value, images)
        if sign:
            slope = tf.sign(slope)
        if unit:
            slope /= _length(slope, axes) + 1e-12
        images += step_size * slope * (1 - step / steps if shrink else 1)
        gap = images - middle
        ratio = radius / (_length(gap, axes) + 1e-12)
        images = middle + gap * (ratio if surface else tf.minimum(1.0, ratio))
    return images.numpy()


def _length(arrays, axes):
    return tf.sqrt(tf.reduce_sum(arrays**2, axis=axes, keepdims=True))


def variation(function, *, seed=0, slope=False):
    """``function(images)``: each image's isotropic total variation; with `slope`, its gradient."""
    rng = np.random.default_rng(seed)
    for shape in ((3, 6, 8, 1), (2, 9, 5, 3)):
        images = rng.random(shape).astype(np.float32)
        if slope:
            images[0, :4, :4] = 0.5  # flat, where a root has no slope
            found = _slope_of(lambda x: call(function, x), images)
            right = _slope_of(_variation, images)
            if found is None:
                raise NotYet(
                    "TensorFlow finds no gradient of your total variation. Compute it with "
                    "TensorFlow's functions from the tensor that comes in, not with numpy's."
                )
            if not np.isfinite(found).all():
                raise NotYet(
                    "where the image is flat, the gradient is NaN or infinite: the slope of a root "
                    "at 0. The small number belongs inside of the root."
                )
            compare(found, right, what="the gradient", tolerance=1e-3, axes=IMAGE)
            continue
        found = call(function, tf.constant(images))
        down, right_ = np.zeros_like(images), np.zeros_like(images)
        down[:, :-1], right_[:, :, :-1] = np.diff(images, axis=1), np.diff(images, axis=2)
        round_ = [np.roll(images, -1, axis=a) - images for a in (1, 2)]
        root = np.sqrt(down**2 + right_**2 + 1e-6)
        sums = {"axis": (1, 2, 3)}
        mistakes = {
            "this is the other kind, the sum of absolute differences. Here the two differences of "
            "a pixel go under one root.": np.sum(abs(down) + abs(right_), **sums),
            "the root is missing.": np.sum(down**2 + right_**2 + 1e-6, **sums),
            "each image's sum is under one root. The root is taken for each pixel.": np.sqrt(
                np.sum(down**2 + right_**2 + 1e-6, **sums)
            ),
            "the last row and the last column are missing. Their differences to what lies beyond "
            "are 0, but the other difference of the pixel counts.": np.sum(
                root[:, :-1, :-1], **sums
            ),
            "the image is closed around its edges: the last row has no neighbour below.": np.sum(
                np.sqrt(round_[0] ** 2 + round_[1] ** 2 + 1e-6), **sums
            ),
            "the small number stands outside of the root.": np.sum(
                np.sqrt(down**2 + right_**2) + 1e-6, **sums
            ),
            "the mean over the places is taken. Sum.": np.mean(root, **sums),
            "all images are summed up. Return one number for each.": np.sum(root),
            "the sums are over rows and columns only; sum over the channels, too.": np.sum(
                root, axis=(1, 2)
            ),
        }
        compare(found, root.sum(**sums), what="the total variation", mistakes=mistakes,
                tolerance=3e-5)  # fmt: skip
    well_done(
        "its gradient is right, also where images are flat." if slope else "the sums are right."
    )


def _slope_of(function, images):
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = tf.reduce_sum(tf.convert_to_tensor(function(images)))
    found = tape.gradient(value, images)
    return None if found is None else found.numpy()


def _variation(images):
    down = tf.pad(images[:, 1:] - images[:, :-1], [[0, 0], [0, 1], [0, 0], [0, 0]])
    right = tf.pad(images[:, :, 1:] - images[:, :, :-1], [[0, 0], [0, 0], [0, 1], [0, 0]])
    return tf.reduce_sum(tf.sqrt(down**2 + right**2 + 1e-6), axis=[1, 2, 3])
