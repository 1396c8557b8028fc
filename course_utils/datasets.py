"""The course's data: real images and images whose truth is known.

Every file lies in ``data/`` and is checked against ``data/SHA256SUMS`` when it is loaded.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np


def _data_folder():
    """The data folder: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(f for f in (package / "data", package.parent / "data") if f.is_dir())


@cache
def data_file(name):
    """Return the path of a shipped file, after checking that it is intact.

    Raises ValueError if the file is missing, truncated or altered; it is never overwritten.
    """
    folder = _data_folder()
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {file: digest for digest, file in (line.split(maxsplit=1) for line in lines)}
    if name not in sums:
        raise ValueError(f"the course ships no file {name!r}. It ships {', '.join(sorted(sums))}.")
    path = folder / name
    remedy = (
        "Reinstall the package, or in a checkout restore it with "
        f"`git checkout -- data/{name}`; `make data` remakes every file from its source."
    )
    if not path.is_file():
        raise ValueError(f"{path} is missing. {remedy}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sums[name]:
        raise ValueError(
            f"{path} is not the file the course ships: its sha256 differs from data/SHA256SUMS. "
            f"{remedy}"
        )
    return path


def load_arrays(name):
    """Return the arrays of a shipped .npz file as a dict, after checking that it is intact."""
    with np.load(data_file(name), allow_pickle=False) as arrays:
        return dict(arrays)


def load_digits(full=False):
    """Load real handwritten digits: 5,000 from MNIST, or all 70,000.

    Parameters
    ----------
    full : bool
        False: the 5,000 digits the course ships (500 of each class), shuffled once and
        split into 4,000 for training and 1,000 for testing. True: all of MNIST, 60,000 and
        10,000, which Keras downloads (11 MB) the first time.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        Images float32 (N, 28, 28, 1) in 0..1, ink bright on a dark ground; labels int64 (N,).

    Raises
    ------
    ValueError
        If the shipped file is not intact.
    RuntimeError
        If `full` needs a download and there is no network.

    References
    ----------
    LeCun, Cortes and Burges, The MNIST database of handwritten digits (1998).
    """
    if full:
        (x_train, y_train), (x_test, y_test) = _download_mnist()
    else:
        arrays = load_arrays("digits.npz")
        images, labels = arrays["images"], arrays["labels"]
        (x_train, x_test), (y_train, y_test) = np.split(images, [4000]), np.split(labels, [4000])
    return (_as_images(x_train), y_train.astype(np.int64)), (
        _as_images(x_test),
        y_test.astype(np.int64),
    )


def _as_images(grey):
    """uint8 (N, H, W) in 0..255 to float32 (N, H, W, 1) in 0..1."""
    return grey[..., np.newaxis].astype(np.float32) / 255


def _download_mnist():
    from keras.datasets import mnist

    try:
        return mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise RuntimeError(
            "load_digits(full=True) downloads MNIST (11 MB) through Keras, and the download "
            f"failed: {error} Connect to a network once (Keras then keeps a copy), or use "
            "load_digits() for the 5,000 digits that the course ships."
        ) from error


class Speech(NamedTuple):
    """Spoken sentences as log-mel spectrograms, with who says what; see `load_speech`."""

    mels: np.ndarray
    sentences: np.ndarray
    speakers: np.ndarray
    split: np.ndarray
    sentence_texts: tuple
    speaker_names: tuple


def load_speech():
    """Load ten sentences spoken by 32 synthetic speakers, each sentence twice by each.

    The sentences come in pairs of the same words in another order, and every speaker has a
    microphone of their own.

    Returns
    -------
    Speech
        mels: float32 (640, 32, 96, 1), log-mel spectrograms in 0..1: 1 is the loudest of the
        clip, 0 is 60 decibels below it or less; 32 bands, the lowest first, by 96 frames of
        1/41 s. sentences, speakers: int64 (640,), indices into sentence_texts and
        speaker_names, tuples of str. split: str (640,), "train", "validation" or "test"
        (20, 6 and 6 speakers); no speaker is in two of them.

    Raises
    ------
    ValueError
        If the shipped file is not intact.

    References
    ----------
    The voices are those of the synthesiser espeak-ng, so no person speaks; data/build/speech.py
    makes them.
    """
    arrays = load_arrays("speech.npz")
    return Speech(
        mels=_as_images(arrays["mels"]),
        sentences=arrays["sentences"].astype(np.int64),
        speakers=arrays["speakers"].astype(np.int64),
        split=arrays["split"],
        sentence_texts=tuple(arrays["sentence_texts"].tolist()),
        speaker_names=tuple(arrays["speaker_names"].tolist()),
    )
