"""What the modules share: checks of what callers pass, and the look-up of layers."""

from contextlib import contextmanager

import keras
import numpy as np

from course_utils._arrays import as_numbers


def check_graph(model):
    """Raise ValueError unless `model` is a network whose layers and shapes are known.

    It must be a keras.Model of Keras 3 that calls its own graph of layers, with one input.
    """
    if not isinstance(model, keras.Model):
        module = type(model).__module__ or ""
        remedy = " Pass the network itself."
        if module.startswith(("tf_keras", "tensorflow")):
            remedy = (
                " A model of tf_keras, the Keras 2 of today: save it as model.h5 and open that with"
                " keras.models.load_model, or build it with Keras 3."
            )
        raise ValueError(
            f"the model must be a keras.Model with one input, got {type(model).__name__}.{remedy}"
        )
    inputs = getattr(model, "inputs", None) or ()
    if len(inputs) == 1 and calls_its_graph(model):
        return
    if len(inputs) > 1:
        raise ValueError(
            f"the model must be a keras.Model with one input, this one has {len(inputs)}. Fix the "
            "others in a model of the images alone: x = keras.Input((height, width, channels)); "
            "keras.Model(x, model([x, ...]))."
        )
    raise ValueError(
        "the model must be a keras.Model with one input, of known shape. If it is Sequential, "
        "give it an Input layer or call it once on a batch; if it is a subclass of "
        "keras.Model, build it with the Functional API, or wrap it: "
        "x = keras.Input((height, width, channels)); keras.Model(x, model(x))."
    )


def calls_its_graph(model):
    """Whether what `model` computes is its graph of layers, not a `call` that somebody wrote."""
    return (type(model).call.__module__ or "").startswith("keras.")


def check_images(model, images):
    """Return `images` as float32 (N, H, W, C), or say what is wrong with them.

    Images are given as the model takes them. If its channels come before the rows and columns,
    (N, C, H, W), they are moved behind them: within the package they always come last.

    Raises ValueError on a model without exactly one input of known shape, and on a wrong rank,
    a shape the model does not take, an empty batch, a type that is not numeric, NaN or infinities;
    for a model that takes integers, on what is none.
    """
    check_graph(model)
    expected = tuple(model.inputs[0].shape)
    if len(expected) != 4:
        raise ValueError(
            "the model must take images, (N, height, width, channels), and takes "
            f"{_sizes(expected[1:])}. Put a Reshape in front of it that takes the channel axis off."
        )
    images = as_numbers("images", images)
    if images.ndim != 4:
        raise ValueError(
            f"images must have shape (N, {_sizes(expected[1:])[1:]}, got {images.shape}."
            + _missing_axis(images.shape, expected)
        )
    if len(images) == 0:
        raise ValueError("images is an empty batch: pass at least one image.")
    if not _fits(images.shape[1:], expected[1:]):
        raise ValueError(
            f"the model takes images of shape {_sizes(expected[1:])}, got {images.shape[1:]}. "
            "Resize the images or give them the channels that the model takes."
        )
    given, images = images, images.astype(np.float32, copy=False)
    if not np.isfinite(images).all():
        bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
        raise ValueError(
            f"images must be finite, but image {bad[0]} holds NaN or infinity"
            f" ({len(bad)} of {len(images)} do)."
        )
    dtype = model.inputs[0].dtype
    if "float" not in dtype and (given.astype(dtype) != given).any():
        raise ValueError(
            f"the model takes whole numbers ({dtype}), and the images hold others, from "
            f"{images.min():g} to {images.max():g}. Pass them on the scale it was trained on."
        )
    return np.ascontiguousarray(np.moveaxis(images, 1, -1)) if channels_first(model) else images


def _sizes(shape):
    """A shape in which a size that is left open is "any"."""
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _fits(shape, expected):
    pairs = zip(shape, expected, strict=True)
    return all(size is None or size == given for given, size in pairs)


def _missing_axis(shape, expected):
    """What to do about images (N, H, W) or (H, W, C): which axis is missing, as far as known."""
    if len(shape) != 3:
        return ""
    batch, channel = _fits(shape, expected[1:]), _fits(shape[1:], expected[1:-1])
    if channel and not batch:
        return " Add the channel axis with images[..., np.newaxis]."
    return " Add the batch axis with image[np.newaxis]." if batch else ""


def channels_first(model):
    """Whether the images that `model` takes have their channels before rows and columns.

    The first layer that tells rows from channels says so. Where none does, channels are last.
    """
    return _channel_axis(model) == 1


def _channel_axis(model):
    """Which axis of the images holds the channels, as the first layer to know has it; or None."""
    meaning = {id(model.inputs[0]): (0, 1, 2, 3)}  # the axis of the images that an axis comes from
    for layer, inputs, outputs in layer_calls(model):
        axes = meaning.get(id(inputs[0])) if inputs else None
        if axes is None or len(inputs[0].shape) != 4:
            continue
        if isinstance(layer, keras.Model):
            axis = _channel_axis(layer) if getattr(layer, "inputs", None) else None
        else:
            axis = _FORMATS.get(not isinstance(layer, keras.layers.Flatten) and _format(layer))
        if axis is not None:
            return axes[axis]
        if len(outputs[0].shape) == 4:
            meaning[id(outputs[0])] = _moved(layer, axes)
    return None


_FORMATS = {"channels_first": 1, "channels_last": 3}


def _format(layer):
    return getattr(layer, "data_format", None)


def _moved(layer, axes):
    """The axes of a tensor (N, ...) behind a layer or operation that exchanges them, or not."""
    if isinstance(layer, keras.layers.Permute):
        return (axes[0], *(axes[axis] for axis in layer.dims))
    if type(layer).__name__ == "Transpose" and hasattr(layer, "axes"):  # keras.ops.transpose
        return tuple(axes[axis] for axis in layer.axes or (3, 2, 1, 0))
    if type(layer).__name__ == "Moveaxis":
        return np.moveaxis(np.empty((0, 1, 2, 3)), layer.source, layer.destination).shape
    return axes


def maps_first(model, layer):
    """Whether the feature maps that `layer` of `model` puts out have channels before the rows."""
    if isinstance(layer, keras.Model) and calls_its_graph(layer):
        layer = layer.outputs[0]._keras_history.operation
    if _format(layer):
        return _format(layer) == "channels_first"
    inputs = layer._inbound_nodes[0].input_tensors if layer._inbound_nodes else ()
    if not inputs:
        return channels_first(model)
    before = maps_first(model, inputs[0]._keras_history.operation)
    return _moved(layer, (0, 1, 2, 3)).index(1 if before else 3) == 1


def check_built(model):
    """Raise ValueError if `model` has no weights and shapes yet."""
    if not isinstance(model, keras.Model):
        check_graph(model)
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

    Walks back from the model's outputs. An operation in the graph, such as the division of
    ``inputs / 255``, stands in it like a layer; it is no keras.Layer and has no weights. A
    layer's own `input` and `output` are those of its first call, which can be another model's,
    or an earlier state of a Sequential that was added to.
    """
    if not (getattr(model, "inputs", None) and calls_its_graph(model)):
        check_graph(model)
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


def layer_output(model, layer, within=None):
    """Return the tensor that a layer, as `find_layer` takes it, puts out within `model`.

    Or `within` another model that calls the layers of `model`, as `plain` makes one.
    """
    way = _way_to(model, layer)
    if isinstance(way[-1], keras.layers.InputLayer) and not way[1:]:
        return (within or model).inputs[0]
    return _output_along(within or model, way)


def _output_along(model, way):
    """The tensor that the last layer of a way puts out, as a tensor of the outermost model."""
    # `plain` calls some layers through another one, of which they are the `layer`.
    calls = [c for c in layer_calls(model) if way[0] in (c[0], getattr(c[0], "layer", None))]
    if not calls and way[1:]:
        return _output_along(model, way[1:])  # its model's layers are called one by one
    if not calls:
        raise ValueError(f"layer {way[0].name!r} does not lead to the output of {model.name!r}.")
    inner, inputs, outputs = calls[-1]
    if not way[1:]:
        return outputs[0]
    if isinstance(way[1], keras.layers.InputLayer):
        return inputs[0]
    if not calls_its_graph(inner):
        raise ValueError(
            f"layer {way[-1].name!r} is called by code of {inner.name!r}, a subclass of "
            "keras.Model: no layer of such a model can be looked at. Build it with the Functional "
            "API."
        )
    # The tensors of a nested model are not the outer one's, so its part is called once more.
    inside = _output_along(inner, way[1:])
    if len(inputs) == 1:
        return keras.Model(inner.inputs[0], inside)(inputs[0])
    return keras.Model(inner.inputs, inside)(inputs)


@contextmanager
def channels_last():
    """Let layers be built with channels last, as the course's weights need them.

    Whatever a keras.json of the user's says. Also a decorator, of what builds a network.
    """
    chosen = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(chosen)


def check_targets(model, targets, count):
    """Return `targets` as int64 (count,): a class for each image, or one class for all.

    A model with one sigmoid output has two classes, 0 and 1.

    Raises ValueError on a model whose output is not (N, K), on a wrong number of targets, on what
    is not a whole number, and on a class the model does not have.
    """
    check_graph(model)
    shapes = [tuple(output.shape) for output in model.outputs]
    if [len(shape) for shape in shapes] != [2] or shapes[0][1] is None:
        raise ValueError(
            "the model must have one output, scores of shape (N, K), got "
            f"{' and '.join(map(str, shapes))}. Choose or reduce it with a keras.Model."
        )
    targets = as_numbers("targets", targets)
    if targets.dtype.kind not in "iu":
        raise ValueError(f"targets must be whole numbers (classes), got {targets.dtype}.")
    if targets.ndim == 0:
        targets = np.full(count, targets)
    if targets.shape != (count,):
        raise ValueError(
            f"targets must be one class for all {count} images, or {count} of them, "
            f"got shape {targets.shape}."
        )
    classes = max(shapes[0][1], 2)
    if targets.min() < 0 or targets.max() >= classes:
        wrong = targets[(targets < 0) | (targets >= classes)][0]
        raise ValueError(
            f"target {wrong} does not exist: the model has classes 0 to {classes - 1}."
        )
    return targets.astype(np.int64)


def check_fill(fill, shape, name="fill", model=None):
    """Return `fill`, which the caller calls `name`, as float32 (H, W, C), or say what is wrong.

    Where `model` takes its channels before the rows, an image to fill with comes like that, too.
    """
    try:
        fill = as_numbers(name, fill).astype(np.float32)
    except ValueError as error:
        raise ValueError(
            f"{error} {name} is a number, a colour of {shape[2]} channels, or an image."
        ) from None
    if model is not None and fill.ndim == 3 and channels_first(model):
        fill = np.moveaxis(fill, 0, -1)
    if fill.shape not in ((), shape[2:], tuple(shape)):
        raise ValueError(
            f"{name} must be a number, a colour of {shape[2]} channels, or an image of shape "
            f"{tuple(shape)}, got shape {fill.shape}."
        )
    if not np.isfinite(fill).all():
        raise ValueError(f"{name} must be finite.")
    return np.broadcast_to(fill, shape)
