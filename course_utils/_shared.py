"""What the modules share: checks of what callers pass, and the look-up of layers."""

import numpy as np


def check_images(model, images):
    """Return `images` as float32 (N, H, W, C), or say what is wrong with them.

    Raises ValueError on a wrong rank, a shape the model does not take, an empty batch,
    a type that is not numeric, NaN or infinities.
    """
    images = np.asarray(images)
    if images.dtype.kind not in "fiub":
        raise ValueError(f"images must be numbers, got an array of {images.dtype}.")
    if images.ndim != 4:
        hint = " Add the batch axis with image[np.newaxis]." if images.ndim == 3 else ""
        raise ValueError(
            f"images must have shape (N, height, width, channels), got {images.shape}.{hint}"
        )
    if len(images) == 0:
        raise ValueError("images is an empty batch: pass at least one image.")
    expected = model.input_shape
    if any(e is not None and e != a for e, a in zip(expected, images.shape, strict=True)):
        wanted = ", ".join("any" if e is None else str(e) for e in expected[1:])
        raise ValueError(
            f"the model takes images of shape ({wanted}), got {images.shape[1:]}. "
            "Resize the images or add the missing channel axis."
        )
    images = images.astype(np.float32, copy=False)
    if not np.isfinite(images).all():
        bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        raise ValueError(
            f"images must be finite, but image {bad[0]} holds NaN or infinity"
            f" ({len(bad)} of {len(images)} do)."
        )
    return images


def check_built(model):
    """Raise ValueError if `model` has no weights and shapes yet."""
    if not model.built or not model.layers:
        raise ValueError(
            "the model is not built yet, so its layers have no shapes. Give it an "
            "Input layer, or call it once on a batch of images."
        )


def find_layer(model, layer):
    """Return the layer of `model` that `layer` names: a name, an index, or the layer itself.

    Raises ValueError that lists the layers when there is no such one.
    """
    check_built(model)
    layers = model.layers
    if any(layer is candidate for candidate in layers):
        return layer
    if isinstance(layer, (int, np.integer)) and -len(layers) <= layer < len(layers):
        return layers[layer]
    for candidate in layers:
        if candidate.name == layer:
            return candidate
    listed = ", ".join(f"{i}: {candidate.name}" for i, candidate in enumerate(layers))
    raise ValueError(f"the model has no layer {layer!r}. It has {listed}.")
