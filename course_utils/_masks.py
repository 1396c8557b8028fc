"""Soft masks: small grids enlarged to the size of an image, which let it through or hide it."""

import cv2
import numpy as np
import tensorflow as tf


def enlarging(small, large):
    """Return the float32 matrix (large, small) that stretches an axis by linear interpolation.

    The value of a cell stands in its centre, as `cv2.resize` has it.
    """
    return cv2.resize(np.eye(small, dtype=np.float32), (small, large))


def enlarged(rows, grids, columns):
    """Grids (B, h, w) stretched to (B, H, W) by matrices (B or 1, H, h) and (B or 1, W, w)."""
    # NumPy's: for matrices as small as these it is ten times as fast as TensorFlow's.
    return rows @ grids @ columns.transpose(0, 2, 1)


_MATRIX = tf.TensorSpec((None, None, None), tf.float32)


@tf.function(input_signature=[_MATRIX] * 3, jit_compile=True)
def shown_through(masks, image, fill):
    """A copy of the image (H, W, C) for each mask (B, H, W), the fill where the mask is 0."""
    return fill + masks[..., tf.newaxis] * (image - fill)
