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
    (folder / "SHA256SUMS").write_text(sums)
    readme = folder / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf8").split("\n## Checksums\n")[0].rstrip("\n")
        readme.write_text(f"{text}\n\n## Checksums\n\n```\n{sums}```\n", encoding="utf8")


if __name__ == "__main__":
    write_sums()
