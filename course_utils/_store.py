"""The folder that the explanations of a data set are kept in: what stands in it, and of what."""

import dis
import errno
import functools
import hashlib
import json
import os
import shutil
import types
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import zarr

from course_utils._shared import calls_its_graph, flat_layers, layer_calls

# What a disk says when it takes no more, in the words of a sentence.
_REFUSALS = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "your share of the disk is used up: make room",
    errno.EROFS: "it cannot be written to: name a folder that can be",
    errno.EACCES: "it cannot be written to: name a folder that you may write to",
    errno.EPERM: "it cannot be written to: name a folder that you may write to",
}


@contextmanager
def writing(out):
    """Turn a full disk or a read-only folder into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise ValueError(
            f"{out}: {_REFUSALS[error.errno]}, and call again. The chunks that are finished are "
            "kept, and only what is missing is computed."
        ) from error


def weights_sha256(model):
    """The sha256 of a network's weights: of the shape and the bytes of each, in their order."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()


def layer_kinds(model):
    """What each layer is, and its activation: what a refusal can say of another graph."""
    kinds = []
    for layer in flat_layers(model):
        activation = getattr(layer, "activation", None)
        kinds.append(f"{type(layer).__name__} {getattr(activation, '__name__', '')}".strip())
    return kinds


def graph_sha256(model):
    """The sha256 of what a network does with its weights: each call, of what, with which settings.

    Names do not count, nor what only training asks for: sessions name the same layers differently.
    """
    return hashlib.sha256(json.dumps(_graph(model)).encode()).hexdigest()


def _graph(model):
    if not _has_graph(model):
        return [[type(layer).__name__, _settings(layer)] for layer in flat_layers(model)]
    numbers = {id(tensor): number for number, tensor in enumerate(model.inputs)}
    calls = []
    for layer, _, made in layer_calls(model):
        node = layer._inbound_nodes[made[0]._keras_history.node_index]
        taken = (list(node.arguments.args), dict(node.arguments.kwargs))
        calls.append([type(layer).__name__, _settings(layer), _settled(taken, numbers)])
        for tensor in made:
            numbers[id(tensor)] = len(numbers)
    return [calls, [numbers[id(tensor)] for tensor in model.outputs]]


def _has_graph(model):
    return bool(getattr(model, "inputs", None)) and calls_its_graph(model)


def _settings(layer):
    if isinstance(layer, keras.Model):
        return _graph(layer)
    functions = [getattr(layer, name, None) for name in ("activation", "function")]
    own = [f for f in functions if callable(f) and not (f.__module__ or "").startswith("keras.")]
    try:
        # Keras would write a function of one's own down with the place where it stands.
        config = {} if own else layer.get_config()
    except Exception:  # whatever the layer's own code raises
        config = {}
    if not config:
        known = {name: value for name, value in vars(layer).items() if name[:1] != "_"}
        config = {name: value for name, value in known.items() if _is_fixed(value)}
    dtype = getattr(getattr(layer, "dtype_policy", None), "name", None)
    own = [_settings(f) if isinstance(f, keras.Layer) else f for f in own]
    config = _of_inference(config) | {"dtype": dtype, "own": own}
    if own and isinstance(layer, keras.layers.Lambda):
        config["arguments"] = layer.arguments
    return _settled(config)


def _of_inference(config):
    """A layer's settings without its name and what only training asks for."""
    return {
        key: value
        for key, value in config.items()
        if key not in ("name", "trainable")
        and not key.endswith(("_initializer", "_regularizer", "_constraint"))
    }


def _settled(value, numbers=None):
    """A value as JSON keeps it, the same in every session: tensors by their numbers."""
    if isinstance(value, keras.KerasTensor):
        return f"tensor {(numbers or {}).get(id(value))}"
    if isinstance(value, dict):
        inner = value.get("config")
        if "class_name" in value and isinstance(inner, dict) and len(inner) > 1:  # a layer within
            value = value | {"config": _of_inference(inner)}
        items = sorted(value.items(), key=lambda pair: str(pair[0]))
        return {str(key): _settled(item, numbers) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_settled(item, numbers) for item in value]
    if isinstance(value, keras.Layer):  # its weights are among the network's
        return type(value).__name__
    if isinstance(value, slice):
        return _settled(["slice", value.start, value.stop, value.step], numbers)
    if isinstance(value, (tf.Tensor, keras.Variable)):
        value = np.asarray(value)
    try:
        return recorded(value)
    except ValueError:
        return f"{type(value).__name__} {getattr(value, '__qualname__', '')}"


def recorded(value):
    """What an option is, as JSON can keep it: arrays and networks by their sha256."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value)).hexdigest()
        return f"{value.dtype} {value.shape} sha256 {digest}"
    if isinstance(value, keras.Model):
        return f"network sha256 {weights_sha256(value)} {graph_sha256(value)}"
    if isinstance(value, (list, tuple)):
        return [recorded(item) for item in value]
    if isinstance(value, dict):
        return {str(key): recorded(item) for key, item in value.items()}
    if isinstance(value, functools.partial):
        return [recorded(value.func), recorded(value.args), recorded(value.keywords)]
    if isinstance(value, keras.Layer):
        settings = hashlib.sha256(json.dumps(_settings(value)).encode()).hexdigest()
        kind = f"layer {value.name} of kind {type(value).__name__}"
        return f"{kind} sha256 {weights_sha256(value)} {settings}"
    if isinstance(value, types.FunctionType):
        return _function(value)
    if isinstance(value, _NAMED) and isinstance(
        getattr(value, "__self__", None), (types.ModuleType, types.NoneType)
    ):
        return f"{value.__module__}.{value.__name__}"
    if callable(value):
        raise ValueError(
            f"an object of kind {type(value).__name__!r} cannot be recorded in the store, although "
            "it can be called: what it holds does not show. Pass a function, or a "
            "functools.partial of one with its settings."
        )
    raise ValueError(
        f"a {type(value).__name__} cannot be recorded in the store. Pass numbers, text, arrays, "
        "networks or functions as options."
    )


# What is written in C, in Python itself or numpy, and holds nothing: its name tells all.
_NAMED = (types.BuiltinFunctionType, np.ufunc, type(np.sum))


def _function(function):
    """A function's name; of one that is not the course's own by name, what it does, too."""
    name = f"{function.__module__}.{function.__qualname__}"
    ours = (function.__module__ or "").startswith("course_utils.")
    if ours and "<" not in function.__qualname__:  # no lambda, nor a function within another
        return name
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    held = [value for value in held if value is not function]  # as one that calls itself does
    held += [function.__defaults__, function.__kwdefaults__, _globals(function)]
    parts = _steps(function.__code__), recorded(held)
    return f"{name} sha256 {hashlib.sha256(repr(parts).encode()).hexdigest()}"


def _steps(code):
    """What a function does, without where it stands: two sessions agree on it."""
    inner = [_steps(c) if hasattr(c, "co_code") else _constant(c) for c in code.co_consts]
    return code.co_code.hex(), code.co_names, inner


def _constant(value):
    """A constant as text. The order of a set's items differs from session to session."""
    return str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _globals(function):
    """The numbers, texts, arrays and networks of its module that a function reads, by name.

    What it writes is not among them, nor lists and dictionaries: a run may keep its notes there.
    """
    known, read = function.__globals__, _looked_up(function.__code__, "LOAD_GLOBAL", "LOAD_NAME")
    names = (read - _looked_up(function.__code__, "STORE_GLOBAL")) & known.keys()
    return {name: known[name] for name in sorted(names) if _is_fixed(known[name])}


def _looked_up(code, *operations):
    """The names to which a function, or one within it, does one of the operations."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in operations}
    inner = [c for c in code.co_consts if hasattr(c, "co_code")]
    return names.union(*(_looked_up(c, *operations) for c in inner))


def _is_fixed(value):
    if isinstance(value, tuple):
        return all(map(_is_fixed, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufcSU"
    kinds = (types.NoneType, bool, int, float, str, np.generic, keras.Model)
    return isinstance(value, kinds)


def open_store(out, settings, shapes, chunk):
    """Open the Zarr group at `out` for writing; make it if there is none, or nothing in it yet.

    `settings` become its attributes. ValueError if it holds explanations made with others, or is
    a folder of something else.
    """
    out = Path(out).resolve()  # a link stays, and leads to the store
    settings = json.loads(json.dumps(settings))
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder for the explanations.")
    if out.is_dir() and any(out.iterdir()):
        store = _existing(out)
        if store["digests"][:].any():
            _check_same(out, dict(store.attrs), settings)
            return store
    with writing(out):
        _create(out, settings, shapes, chunk)
        return zarr.open_group(out, mode="r+")


def _existing(out):
    try:
        store = zarr.open_group(out, mode="r+")
        known = store.attrs.get("made_by") == "course_utils.at_scale"
    except (FileNotFoundError, ValueError):
        known = False
    if not known:
        raise ValueError(f"{out} holds something else: name a folder that is new or empty.")
    return store


def _check_same(out, kept, settings):
    differ = [key for key in settings if kept.get(key) != settings[key]]
    if not differ:
        return
    was, now = (_brief({key: of.get(key) for key in differ}) for of in (kept, settings))
    raise ValueError(
        f"{out} holds explanations of another kind: they have {was}, and this call has {now}. "
        "Name another folder, or delete that one."
    )


def _brief(settings):
    return ", ".join(f"{key} {str(value)[:160]}" for key, value in settings.items())


def _create(out, settings, shapes, chunk):
    """Make an empty store, beside its place and then moved there: whole or not at all."""
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        group = zarr.create_group(beside, attributes=settings)
        for name, (shape, dtype, empty) in shapes.items():
            chunks = (1 if name == "digests" else min(chunk, shape[0]), *shape[1:])
            # A chunk that happens to equal the fill is written all the same.
            group.create_array(
                name,
                shape=shape,
                chunks=chunks,
                dtype=dtype,
                fill_value=empty,
                config={"write_empty_chunks": True},
            )
        if out.exists():
            shutil.rmtree(out)  # empty, or a store in which no chunk is finished
        os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
