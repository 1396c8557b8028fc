"""The folder that the explanations of a data set are kept in: what stands in it, and of what."""

import errno
import functools
import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import zarr

from course_utils._shared import flat_layers

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
    """What each layer is, and its activation: the same weights can be those of two networks."""
    kinds = []
    for layer in flat_layers(model):
        activation = getattr(layer, "activation", None)
        kinds.append(f"{type(layer).__name__} {getattr(activation, '__name__', '')}".strip())
    return kinds


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
        return f"network sha256 {weights_sha256(value)}"
    if isinstance(value, (list, tuple)):
        return [recorded(item) for item in value]
    if isinstance(value, dict):
        return {str(key): recorded(item) for key, item in value.items()}
    if isinstance(value, functools.partial):
        return [recorded(value.func), recorded(value.args), recorded(value.keywords)]
    if callable(value):
        return _function(value)
    raise ValueError(
        f"a {type(value).__name__} cannot be recorded in the store. Pass numbers, text, arrays, "
        "networks or functions as options."
    )


def _function(function):
    """A function's name; of one that is not of the course, what it does, too."""
    name = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
    code = getattr(function, "__code__", None)
    if code is None or function.__module__.startswith("course_utils."):
        return name
    held = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = _steps(code), recorded([*held, *(function.__defaults__ or ())])
    return f"{name} sha256 {hashlib.sha256(repr(parts).encode()).hexdigest()}"


def _steps(code):
    """What a function does, without where it stands: two sessions agree on it."""
    inner = [_steps(c) if hasattr(c, "co_code") else repr(c) for c in code.co_consts]
    return code.co_code.hex(), code.co_names, inner


def open_store(out, settings, shapes, chunk):
    """Open the Zarr group at `out` for writing; make it if there is none, or nothing in it yet.

    `settings` become its attributes. ValueError if it holds explanations made with others, or is
    a folder of something else.
    """
    out = Path(out)
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
