"""Checks of numbers and photos, and the crop: what is shared, too, and needs no network.

So who reads data alone need not wait for Keras.
"""

import numpy as np
from PIL import Image


def as_numbers(name, values):
    """`values` as an array of numbers, or a ValueError that says what they are instead."""
    try:
        array = np.asarray(values)
    except ValueError:  # numpy's "inhomogeneous shape"
        raise ValueError(f"{name} must be one array, but its parts differ in shape.") from None
    if array.dtype.kind not in "fiub":
        what = repr(values) if isinstance(values, str) else f"an array of {array.dtype}"
        raise ValueError(f"{name} must be numbers, got {what}.")
    return array


def check_whole(name, value, least, most=None):
    """Raise ValueError unless `value` is a whole number from `least` to `most`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        upto = f" to {most}" if most is not None else " upwards"
        raise ValueError(f"{name} must be a whole number from {least}{upto}, got {value!r}.")


def check_photos(photos):
    """Return `photos` as uint8 or float32 (N, height, width, 3) in 0..255, or say what is wrong.

    Raises ValueError on a wrong rank, other channels than three, an empty batch, a type that is
    not numeric, values outside 0..255, and floats that lie within 0..1, whose scale is unclear.
    """
    try:
        photos = np.asarray(photos)
    except ValueError:  # numpy's "inhomogeneous shape"
        raise ValueError("the photos differ in size: pass them one by one.") from None
    if photos.dtype.kind not in "fiu":
        raise ValueError(f"photos must be numbers in 0..255, got an array of {photos.dtype}.")
    if photos.ndim not in (3, 4) or photos.shape[-1] != 3 or 0 in photos.shape:
        raise ValueError(
            "photos must have shape (height, width, 3) or (N, height, width, 3) and hold at least "
            f"a pixel, got {photos.shape}. load_photo turns any image file into RGB."
        )
    low, high = photos.min(), photos.max()
    if not (low >= 0 and high <= 255):  # NaN fails every comparison
        raise ValueError(
            f"photos must be in 0..255, got {low:.4g} to {high:.4g}. If they are already "
            "preprocessed, pass them to the model as they are."
        )
    if photos.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"photos are floats in 0..255, and these reach only {high:.4g}: if their scale is "
            "0..1, multiply them by 255."
        )
    kind = np.float32 if photos.dtype.kind == "f" else np.uint8
    return photos.reshape(-1, *photos.shape[-3:]).astype(kind, copy=False)


def centre_square(photo, size):
    """Return the largest square in the middle of `photo`, resized to `size` × `size`.

    `photo` is uint8 or float32 (height, width, channels) in 0..255; the square is of the same
    type. Pillow's bicubic filter resizes it, because it is sharp and yet averages over all the
    pixels that shrink into one; OpenCV's skips pixels, or blurs (INTER_AREA).
    """
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    square = photo[top : top + side, left : left + side]
    if side == size:
        return square.copy()
    channels = [Image.fromarray(np.ascontiguousarray(c)) for c in np.moveaxis(square, -1, 0)]
    resized = [np.asarray(c.resize((size, size), Image.Resampling.BICUBIC)) for c in channels]
    # In floats the filter's negative lobes overshoot at sharp edges; in bytes Pillow clips them.
    return np.stack(resized, axis=-1).clip(0, 255)
