"""What the build scripts share: where files go, and how arrays and weights are written."""

import hashlib
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1]


def write_arrays(name, folder=DATA, **arrays):
    """Write data/`name`, then its line in SHA256SUMS."""
    path = Path(folder) / name
    np.savez_compressed(path, **arrays)
    write_sums(folder)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def write_weights(name, model, folder=DATA):
    """Write a network's weights in half precision, which costs no accuracy and halves the file."""
    weights = {w.path: np.asarray(w.numpy(), np.float16) for w in model.weights}
    write_arrays(f"{name}_weights.npz", folder, **weights)


def write_sums(folder=DATA):
    """Write SHA256SUMS anew, in the format of the sha256sum program."""
    files = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix in {".npz", ".jpg", ".json"} and "build" not in path.parts
    )
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n"
        for path in files
    ]
    (Path(folder) / "SHA256SUMS").write_text("".join(lines))
