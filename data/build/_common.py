"""What the build scripts share: what they need, where files go, how they are written.

A file is written beside its place and then moved there, so that a script that fails or is
interrupted leaves the old file as it was. Every script of arrays or weights takes ``--compare``: it
makes all that it makes, writes nothing, and says how that differs from what is there.
"""

import hashlib
import shutil
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

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


@contextmanager
def replacing_shipped(name, folder=DATA):
    """Open data/`name` as `replacing` does, if the others are whole; then write its line."""
    check_sums(folder, made=[name])
    with replacing(Path(folder) / name) as file:
        yield file
    write_sums(folder, made=[name])
    print(f"{name}: {(Path(folder) / name).stat().st_size:,} bytes")


def write_shipped_text(name, text, folder=DATA):
    """Write data/`name`, then its line in SHA256SUMS; or, with ``--compare``, compare only."""
    path, content = Path(folder) / name, text.encode()
    if "--compare" in sys.argv:
        same = path.is_file() and path.read_bytes() == content
        says = "the same" if same else "other text" if path.is_file() else "there is no such file"
        print(f"{name}: {says}", flush=True)
        return
    with replacing_shipped(name, folder) as file:
        file.write(content)


def write_arrays(name, folder=DATA, **arrays):
    """Write data/`name`, then its line in SHA256SUMS; or, with ``--compare``, compare only."""
    if "--compare" in sys.argv:
        print(f"{name}: {difference(Path(folder) / name, arrays)}", flush=True)
        return
    with replacing_shipped(name, folder) as file:
        np.savez_compressed(file, **arrays)


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


def sum_of(path):
    """The sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_sums(folder=DATA):
    """From each file in SHA256SUMS to its sum."""
    path = Path(folder) / "SHA256SUMS"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def check_sums(folder=DATA, made=()):
    """Stop, before anything is written, where a file is not what its line says, save those made."""
    damaged = [
        f"{name} is not what SHA256SUMS says: restore it (git checkout -- data/{name}), or delete "
        "it and run the script that makes it."
        for name, digest in read_sums(folder).items()
        if name not in made and (path := Path(folder) / name).is_file() and sum_of(path) != digest
    ]
    if damaged:
        sys.exit("\n".join(damaged))


def write_sums(folder=DATA, made=None):
    """Write the lines of the files made into SHA256SUMS, and the copy of it in the README.

    The other lines stay, so that a file that was damaged meanwhile is still found out. Without
    `made`, all lines are written anew: after files were put there or taken away by hand.
    """
    folder = Path(folder)
    if made is None:
        made = [
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix in {".npz", ".jpg", ".json"} and "build" not in path.parts
        ]
        kept = {}
    else:
        kept = read_sums(folder)
    lines = kept | {name: sum_of(folder / name) for name in made}
    sums = "".join(f"{lines[name]}  {name}\n" for name in sorted(lines, key=PurePosixPath))
    write_text(folder / "SHA256SUMS", sums)
    readme = folder / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf8").split("\n## Checksums\n")[0].rstrip("\n")
        write_text(readme, f"{text}\n\n## Checksums\n\n```\n{sums}```\n")
