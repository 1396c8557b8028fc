"""The course's data: real images and images whose truth is known.

Every file lies in ``data/`` and is checked against ``data/SHA256SUMS`` when it is loaded.
"""

import hashlib
import io
import os
import warnings
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from course_utils._arrays import centre_square, check_whole


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
        f"Reinstall the package, or in a checkout restore it with `git checkout -- data/{name}`."
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
    images = grey[..., np.newaxis].astype(np.float32)
    images /= 255  # in place: all of MNIST is large
    return images


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


class Squares(NamedTuple):
    """What make_squares returns; its docstring says what each array holds."""

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def make_squares(n, *, seed, grey=0.5):
    """Make document 000's toy: random images, about half of them with a grey rectangle drawn in.

    The backgrounds are 200 shipped ones, each turned, flipped and its colours exchanged at
    random (48 ways). A call uses every background once before it uses one twice: up to 200
    images share none, so splitting them splits the backgrounds too. Two calls do share
    backgrounds, but a background tells nothing: the rectangle is drawn without looking at it.

    Parameters
    ----------
    n : int
        How many images.
    seed : int
        The same seed makes the same images.
    grey : float
        Value of the rectangle. 100.0 is the document's own, in images of 0..1.

    Returns
    -------
    Squares
        images float32 (n, 64, 64, 3) in 0..1, save for the rectangle if `grey` is not; labels
        int64 (n,), 1 where there is a rectangle, each with probability one half; masks bool
        (n, 64, 64), True on the rectangle.

    Raises
    ------
    ValueError
        If n is not a positive whole number, grey is not finite, or the shipped file not intact.

    References
    ----------
    Mehul Gupta, Using LIME to explain CNNs (document 000): the rectangle's top left corner falls
    in the first half of the rows and columns, its bottom right corner in the second, so that
    every rectangle covers the middle pixel (31, 31).
    """
    check_whole("n", n, 1)
    if not np.isfinite(grey):
        raise ValueError(f"grey must be finite, got {grey}. The document's own is 100.0.")
    backgrounds = load_arrays("squares_backgrounds.npz")["images"]
    return _draw_squares(backgrounds, n, np.random.default_rng(seed), grey)


def _draw_squares(backgrounds, n, rng, grey):
    """make_squares on backgrounds of one's choice, uint8 (N, size, size, 3)."""
    rounds = -(-n // len(backgrounds))
    order = np.concatenate([rng.permutation(len(backgrounds)) for _ in range(rounds)])[:n]
    images = np.stack([_turn(backgrounds[i], rng) for i in order]).astype(np.float32) / 255
    labels = rng.integers(0, 2, n)
    size = images.shape[1]
    top, left = rng.integers(0, size // 2, (2, n))
    bottom, right = rng.integers(size // 2, size, (2, n))
    masks = np.zeros((n, size, size), bool)
    for i in np.flatnonzero(labels):
        masks[i, top[i] : bottom[i], left[i] : right[i]] = True
    images[masks] = grey
    return Squares(images, labels, masks)


def _turn(image, rng):
    """Turn a square image by quarters, flip it and exchange its colours, at random."""
    image = np.rot90(image, rng.integers(4))
    if rng.integers(2):
        image = image[:, ::-1]
    return image[..., rng.permutation(3)]


class Scenes(NamedTuple):
    """What make_scenes returns; its docstring says what each array holds."""

    images: np.ndarray
    labels: np.ndarray
    cloudy: np.ndarray
    tank_masks: np.ndarray
    sky_masks: np.ndarray
    masks: np.ndarray


THINGS = ("grass", "sky", "tank", "hills", "trees", "bushes", "rocks")


def make_scenes(n, *, confounded, seed):
    """Make document 003's tank story: fields, half of them with a tank, half under clouds.

    The land is drawn, and lit, without regard to the weather: one seed makes the same land with
    the same tanks, whether `confounded` or not. Where there is no tank, a bush or a rock lies in
    its place; other bushes and rocks stand about.

    Parameters
    ----------
    n : int
        How many scenes, of which n // 2 with a tank.
    confounded : bool
        True: every tank stands under clouds, and nothing else does. False: tank and clouds have
        nothing to do with each other; each of the four cases makes up a quarter.
    seed : int
        The same seed makes the same scenes.

    Returns
    -------
    Scenes
        images float32 (n, 64, 64, 3) in 0..1; labels int64 (n,), 1 where there is a tank; cloudy
        bool (n,); tank_masks and sky_masks bool (n, 64, 64), True on pixels at least half of
        which show the tank, or the sky; what stands before the sky or the tank is in neither.
        masks bool (n, 64, 64, 7): the same for each of `THINGS`, the kinds of things that are
        drawn: "grass", "sky", "tank", "hills", "trees", "bushes", "rocks". A cloud is sky, and
        what lies in a shadow is grass; no pixel where none of them makes up half is in any.

    Raises
    ------
    ValueError
        If n is not a positive whole number.

    References
    ----------
    Yudkowsky, Artificial Intelligence as a Positive and Negative Factor in Global Risk (2008),
    tells the story; nobody has found the army's photographs.
    """
    from course_utils import _scenery

    check_whole("n", n, 1)
    rng = np.random.default_rng(seed)
    cases = rng.permutation(np.arange(n) % 4)
    labels = cases % 2
    cloudy = labels == 1 if confounded else cases >= 2
    images = np.empty((n, 64, 64, 3), np.float32)
    masks = np.empty((n, 64, 64, len(THINGS)), bool)
    for i, (land, sky) in enumerate(zip(rng.spawn(n), rng.spawn(n), strict=True)):
        canvas = _scenery.draw_scene(labels[i] == 1, cloudy[i], land, sky)
        images[i], masks[i] = _scenery.shrink(canvas)
    tank_masks, sky_masks = (masks[..., THINGS.index(thing)].copy() for thing in ("tank", "sky"))
    return Scenes(images, labels, cloudy, tank_masks, sky_masks, masks)


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


MAX_PIXELS = 50_000_000


def photo_names():
    """Return the names of the photos the course ships, as `load_photo` takes them."""
    files = (_data_folder() / "SHA256SUMS").read_text().split()
    return [Path(file).stem for file in files if file.startswith("photos/")]


def load_photo(name, size=224):
    """Load one of the course's photos, or one of your own.

    Parameters
    ----------
    name : str, path or bytes
        A name out of `photo_names()`, say "dog"; or the path or the bytes of a JPEG, PNG or WebP
        file. Grey, palette, CMYK and 16-bit pictures become 8-bit RGB, transparent parts become
        white, and a photo that its camera marked as turned is turned upright.
    size : int or None
        The centre square, resized to `size` × `size`; or, if None, the whole photo as it is.

    Returns
    -------
    array
        uint8 (size, size, 3), or (height, width, 3) if `size` is None; red, green, blue in 0..255.

    Raises
    ------
    ValueError
        If there is no such photo or file; if the file is empty, broken, truncated, no JPEG, PNG
        or WebP, or over 50 megapixels, which its header tells before anything is decoded. The
        limit is 25 for WebP and progressive JPEG, which take more memory to decode.
    """
    if size is not None:
        check_whole("size", size, 1, int(MAX_PIXELS**0.5))
    photo = _decode(*_photo_source(name))
    return photo if size is None else centre_square(photo, size)


def _photo_source(name):
    """What Pillow shall open, and what to call it when it cannot."""
    if isinstance(name, (bytes, bytearray, memoryview)):
        if not len(name):
            raise ValueError("the photo is empty: it has no bytes.")
        return io.BytesIO(name), "the photo"
    if isinstance(name, str) and name in photo_names():
        return data_file(f"photos/{name}.jpg"), name
    if not isinstance(name, (str, os.PathLike)):
        raise ValueError(
            "name must be the name of a photo, or the path or bytes of an image file, "
            f"got {type(name).__name__}."
        )
    path = os.path.expanduser(name)
    if not os.path.isfile(path):
        raise ValueError(
            f"there is no photo or file {str(name)[:200]!r}. The course ships "
            f"{', '.join(photo_names())}; your own photo goes by the path of its file."
        )
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path} is empty: it has no bytes.")
    return path, path


def _decode(source, label):
    """An image file as uint8 (height, width, 3), upright; its size is checked before its data."""
    most = MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(source, formats=["JPEG", "PNG", "WEBP"])
        with image:
            if image.format == "WEBP" or "progressive" in image.info:
                most = MAX_PIXELS // 2  # 16 bytes a pixel, where others take 8
            if image.width * image.height > most:
                raise Image.DecompressionBombError
            _scale_transparency(image)
            ImageOps.exif_transpose(image, in_place=True)
            return _as_rgb(image)
    except Image.DecompressionBombError:
        raise ValueError(
            f"{label} has over {most // 10**6} megapixels. Shrink it before you load it"
            + (", or save it as a plain JPEG." if most < MAX_PIXELS else ".")
        ) from None
    except UnidentifiedImageError:
        raise ValueError(
            f"{label} is not a JPEG, PNG or WebP image, or its first bytes are damaged. A picture "
            "in another format (HEIC, GIF, PDF) has to be saved as JPEG first."
        ) from None
    except Exception as error:  # Pillow's decoders raise half a dozen types on broken files
        raise ValueError(
            f"{label} is broken or truncated ({error}). Copy or save it anew."
        ) from error


def _scale_transparency(image):
    """Give the transparent colour of a PNG the scale that its pixels have once Pillow reads them.

    Of 16 bits the high byte counts, because Pillow keeps no more of colours.
    """
    raw = image.tile[0].args if image.tile else ""
    colour = image.info.get("transparency")
    if raw in ("L;2", "L;4") and colour is not None:
        image.info["transparency"] = colour * (85 if raw == "L;2" else 17)
    if raw == "RGB;16B" and colour is not None:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _as_rgb(image):
    """A Pillow image as uint8 (height, width, 3), on white where it is transparent."""
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, 256):  # in strips, so that no large photo is copied whole
        bottom = min(top + 256, image.height)
        rgb[top:bottom] = _strip_as_rgb(image.crop((0, top, image.width, bottom)))
    return rgb


def _strip_as_rgb(image):
    if image.mode.startswith("I"):  # 16-bit grey: keep the high byte, as Pillow does for colours
        values, colour = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray(np.where(values == colour, 255, values >> 8).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
