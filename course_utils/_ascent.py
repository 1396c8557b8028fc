"""What activation maximisation does to images and slopes in each of its steps."""

import tensorflow as tf


def variation_slope(images):
    """The gradient of each image's total variation, `tf.image.total_variation`.

    By hand, which takes a tenth of the time: a difference of neighbours pulls the one up and the
    other down, by the same.
    """
    slope = tf.zeros_like(images)
    for axis in (1, 2):
        size = images.shape[axis]
        _, later = tf.split(images, [1, size - 1], axis)
        earlier, _ = tf.split(images, [size - 1, 1], axis)
        rise = tf.sign(later - earlier)
        before, after = [[0, 0]] * 4, [[0, 0]] * 4
        before[axis], after[axis] = [1, 0], [0, 1]
        slope += tf.pad(rise, before) - tf.pad(rise, after)
    return slope


def shifted(images, seed, most):
    """The images, shifted around their edges by up to so many pixels, all by the same."""
    most = tf.cast(most, tf.int32)
    shift = tf.random.stateless_uniform([2], seed, -most, most + 1, tf.int32)
    return tf.roll(images, shift, axis=[1, 2])


def centred(noise, maps, ids):
    """The noise (1, H, W, C) shifted, for each channel, to where it answers most in the middle.

    The unit in the middle of a map (1, h, w, channels) may be silent where others are not.
    """
    height, width = maps.shape[1:3]
    places = tf.argmax(tf.reshape(maps, [height * width, -1]), output_type=tf.int32)
    places = tf.gather(places, ids)
    rows = (height // 2 - places // width) * (noise.shape[1] // height)
    columns = (width // 2 - places % width) * (noise.shape[2] // width)
    shifts = tf.stack([rows, columns], axis=1)
    return tf.map_fn(
        lambda shift: tf.roll(noise[0], shift, [0, 1]), shifts, fn_output_signature=tf.float32
    )


def unit(slope):
    """Each row of `slope` divided by its root mean square; rows of zeros stay."""
    axes = list(range(1, len(slope.shape)))
    # First by the largest, or the square of a tiny slope would be zero.
    slope = tf.math.divide_no_nan(slope, tf.reduce_max(tf.abs(slope), axes, keepdims=True))
    return tf.math.divide_no_nan(slope, tf.sqrt(tf.reduce_mean(slope**2, axes, keepdims=True)))


def confine(points, on, numbers):
    """What happens to the pixels, or to z, after each step: blur, range, ball."""
    if "blur" in on:
        for axis, product in ((1, "ij,njwc->niwc"), (2, "ij,nhjc->nhic")):
            places = tf.range(points.shape[axis], dtype=tf.float32) / numbers["blur"]
            weights = tf.nn.softmax(-((places - places[:, tf.newaxis]) ** 2) / 2)
            points = tf.einsum(product, weights, points)
    if "low" in on and "fourier" not in on:
        points = tf.clip_by_value(points, numbers["low"], numbers["high"])
    if "norm" in on:
        points = tf.clip_by_norm(points, numbers["norm"], list(range(1, len(points.shape))))
    return points
