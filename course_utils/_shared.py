"""What the modules share: checks of what callers pass, the look-up of layers, the crop."""

import keras
import numpy as np
from PIL import Image


def check_images(model, images):
    """Return `images` as float32 (N, H, W, C), or say what is wrong with them.

    Raises ValueError on a model without exactly one input of known shape, and on a wrong rank,
    a shape the model does not take, an empty batch, a type that is not numeric, NaN or infinities.
    """
    if len(getattr(model, "inputs", None) or ()) != 1:
        raise ValueError(
            "the model must be a keras.Model with one input, of known shape. If it is Sequential, "
            "give it an Input layer or call it once on a batch; if it is a subclass of "
            "keras.Model, build it with the Functional API."
        )
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

    A layer of a nested model goes by its path, "inner/conv", or by its name alone if only one
    bears it; of equal names the outermost counts.

    Raises ValueError that lists the layers when there is no such one.
    """
    return _way_to(model, layer)[-1]


def _way_to(model, layer):
    """The layers that lead to the one that `layer` names: nested models, and the layer itself."""
    check_built(model)
    layers = model.layers
    if isinstance(layer, (int, np.integer)) and -len(layers) <= layer < len(layers):
        return [layers[layer]]
    found = [way for way in _ways(model) if way[-1] is layer or layer in (way[-1].name, _path(way))]
    if not found:
        listed = ", ".join(f"{i}: {candidate.name}" for i, candidate in enumerate(layers))
        nested = [_path(way) for way in _ways(model) if way[1:]]
        deeper = f", and within nested models {', '.join(nested)}" if nested else ""
        raise ValueError(f"the model has no layer {layer!r}. It has {listed}{deeper}.")
    outermost = [way for way in found if len(way) == min(map(len, found))]
    if outermost[1:]:
        paths = ", ".join(_path(way) for way in outermost)
        raise ValueError(f"the model has several layers {layer!r}: {paths}. Give the path of one.")
    return outermost[0]


def _ways(model):
    """The way to each layer of `model`, and on to those of nested models."""
    for layer in model.layers:
        yield [layer]
        if isinstance(layer, keras.Model):
            yield from ([layer, *way] for way in _ways(layer))


def _path(way):
    return "/".join(layer.name for layer in way)


def flat_layers(model):
    """Return the layers of `model` in order, those of nested models in their models' places."""
    flat = []
    for layer in model.layers:
        flat += flat_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return flat


def layer_calls(model):
    """Return the calls a model consists of, in order: (layer, tensors in, tensors out).

    Walks back from the model's outputs. A layer's own `input` and `output` are those of its first
    call, which can be another model's, or an earlier state of a Sequential that was added to.
    """
    calls, seen = [], {id(tensor) for tensor in model.inputs}

    def visit(tensor):
        if id(tensor) in seen:
            return
        layer, call, _ = tensor._keras_history
        node = layer._inbound_nodes[call]
        for needed in node.input_tensors:
            visit(needed)
        seen.update(id(made) for made in node.output_tensors)
        calls.append((layer, node.input_tensors, node.output_tensors))

    for output in model.outputs:
        visit(output)
    return calls


def layer_output(model, layer):
    """Return the tensor that a layer, as `find_layer` takes it, puts out within `model`."""
    return _output_along(model, _way_to(model, layer))


def _output_along(model, way):
    """The tensor that the last layer of a way puts out, as a tensor of the outermost model."""
    calls = [call for call in layer_calls(model) if call[0] is way[0]]
    if not calls:
        raise ValueError(f"layer {way[0].name!r} does not lead to the output of {model.name!r}.")
    inner, inputs, outputs = calls[-1]
    if not way[1:]:
        return outputs[0]
    # The tensors of a nested model are not the outer one's, so its part is called once more.
    inside = _output_along(inner, way[1:])
    if len(inputs) == 1:
        return keras.Model(inner.inputs[0], inside)(inputs[0])
    return keras.Model(inner.inputs, inside)(inputs)


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


def check_targets(model, targets, count):
    """Return `targets` as int64 (count,): a class for each image, or one class for all.

    A model with one sigmoid output has two classes, 0 and 1.

    Raises ValueError on a model whose output is not (N, K), on a wrong number of targets, on what
    is not a whole number, and on a class the model does not have.
    """
    shapes = [output.shape for output in model.outputs]
    if [len(shape) for shape in shapes] != [2]:
        raise ValueError(
            "the model must have one output, scores of shape (N, K), got "
            f"{' and '.join(map(str, shapes))}. Choose or reduce it with a keras.Model."
        )
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iu":
        raise ValueError(f"targets must be whole numbers (classes), got {targets.dtype}.")
    if targets.ndim == 0:
        targets = np.full(count, targets)
    if targets.shape != (count,):
        raise ValueError(
            f"targets must be one class for all {count} images, or {count} of them, "
            f"got shape {targets.shape}."
        )
    classes = max(model.output_shape[-1], 2)
    if targets.min() < 0 or targets.max() >= classes:
        wrong = targets[(targets < 0) | (targets >= classes)][0]
        raise ValueError(
            f"target {wrong} does not exist: the model has classes 0 to {classes - 1}."
        )
    return targets.astype(np.int64)


def check_whole(name, value, least, most=None):
    """Raise ValueError unless `value` is a whole number from `least` to `most`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        upto = f" to {most}" if most is not None else " upwards"
        raise ValueError(f"{name} must be a whole number from {least}{upto}, got {value!r}.")


def check_fill(fill, shape, name="fill"):
    """Return `fill`, which the caller calls `name`, as float32 (H, W, C), or say what is wrong."""
    fill = np.asarray(fill, np.float32)
    if fill.shape not in ((), shape[2:], tuple(shape)):
        raise ValueError(
            f"{name} must be a number, a colour of {shape[2]} channels, or an image of shape "
            f"{tuple(shape)}, got shape {fill.shape}."
        )
    if not np.isfinite(fill).all():
        raise ValueError(f"{name} must be finite.")
    return np.broadcast_to(fill, shape)
