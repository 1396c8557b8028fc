"""What the build scripts share: what they need, where files go, how they are written.

A file is written beside its place and then moved there, so that a script that fails or is
interrupted leaves the old file as it was. Every script takes ``--compare``: it makes all that it
makes, writes nothing, and says how the arrays differ from those that are there.
"""

import hashlib
import shutil
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1]


def need(*, packages=(), programs=()):
    """Stop, before anything is written, with a sentence that names what is not installed."""
    missing = [f"the Python package {package}" for package in packages if not find_spec(package)]
    missing += [f"the program {program}" for program in programs if not shutil.which(program)]
    if missing:
        sys.exit(
            f"{Path(sys.argv[0]).name} needs {' and '.join(missing)}; the top of the script says "
            "where to get it. Nothing was written."
        )


@contextmanager
def replacing(path):
    """Open a file beside `path` for writing bytes; it takes the place of `path` when complete."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path, text):
    """Write a text file, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_arrays(name, folder=DATA, **arrays):
    """Write data/`name`, then its line in SHA256SUMS; or, with ``--compare``, compare only."""
    path = Path(folder) / name
    if "--compare" in sys.argv:
        print(f"{name}: {difference(path, arrays)}", flush=True)
        return
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)
    write_sums(folder)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def difference(path, arrays):
    """How arrays differ from those of a file, in words."""
    if not path.is_file():
        return "there is no such file"
    with np.load(path) as file:
        there = dict(file)
    if there.keys() != arrays.keys():
        return f"other arrays: {', '.join(sorted(there.keys() ^ arrays.keys()))}"
    found = []
    for name, array in arrays.items():
        array, old = np.asarray(array), there[name]
        if (array.shape, array.dtype) != (old.shape, old.dtype):
            found.append(f"{name} is {array.dtype} {array.shape}, was {old.dtype} {old.shape}")
        elif (other := array != old).any():
            most = np.abs(np.subtract(array, old, dtype=float)).max()
            found.append(f"{name}: {other.mean():.1%} of the values differ, by {most:.2g} at most")
    return "; ".join(found) or "the same"


def write_weights(name, model, folder=DATA):
    """Write a network's weights in half precision, which costs no accuracy and halves the file."""
    weights = {w.path: np.asarray(w.numpy(), np.float16) for w in model.weights}
    write_arrays(f"{name}_weights.npz", folder, **weights)


def write_sums(folder=DATA):
    """Write SHA256SUMS anew, as the sha256sum program would, and the copy of it in the README."""
    folder = Path(folder)
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in {".npz", ".jpg", ".json"} and "build" not in path.parts
    )
    sums = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in files
    )
    write_text(folder / "SHA256SUMS", sums)
    readme = folder / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf8").split("\n## Checksums\n")[0].rstrip("\n")
        write_text(readme, f"{text}\n\n## Checksums\n\n```\n{sums}```\n")
