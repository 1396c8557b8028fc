"""No loader takes more than 500 MB: each is measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MOST = 500  # megabytes
# Prints how many megabytes the peak grows by. What is imported, and TensorFlow's own start, is
# not the loader's.
MEASURE = """
import re, resource
import numpy as np
from course_utils import datasets
{start}
def peak():
    try:  # getrusage would count, on Linux, the peak of the process that started this one
        return int(re.search("VmHWM:(.*) kB", open("/proc/self/status").read())[1]) / 1e3
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
before = peak()
kept = {call}
print(peak() - before)
"""
TENSORFLOW = "import keras; from course_utils import models; keras.layers.Dense(1).build((1, 1))"
# What Keras would download, in its size.
FULL = """
def parts(n):
    return np.ones((n, 28, 28), np.uint8), np.ones(n, np.uint8)
datasets._download_mnist = lambda: (parts(60_000), parts(10_000))
"""


def megabytes(call, start=""):
    """By how much the peak memory of a new process grows when it evaluates `call`."""
    command = [sys.executable, "-c", MEASURE.format(call=call, start=start)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(run.stdout)


@pytest.mark.parametrize(
    ("call", "start"),
    [
        ("datasets.load_digits()", ""),
        ("datasets.load_digits(full=True)", FULL),
        ("datasets.make_squares(1000, seed=0)", ""),
        ("datasets.make_scenes(200, confounded=True, seed=0)", ""),
        ("datasets.load_speech()", ""),
        ("[datasets.load_photo(name) for name in datasets.photo_names()]", ""),
        ("models.imagenet_classifier()", TENSORFLOW),
        (
            "[models.load_trained(n) for n in "
            "('digits', 'digits_vae', 'squares', 'scenes_confounded', 'scenes_fair', 'speech')]",
            TENSORFLOW,
        ),
    ],
)
def test_no_loader_takes_over_500_megabytes(call, start):
    assert megabytes(call, start) < MOST


# The largest files of each kind that load_photo takes: 50 megapixels, or 25.
LARGEST = {
    "plain.jpg": ((10_000, 5_000), {}),
    "plain.png": ((10_000, 5_000), {"compress_level": 1}),
    "progressive.jpg": ((5_000, 5_000), {"progressive": True, "subsampling": 0}),
    "lossy.webp": ((5_000, 5_000), {"method": 0}),
    "lossless.webp": ((5_000, 5_000), {"lossless": True, "method": 0, "quality": 0}),
}


SLOW = ("plain.png", "lossy.webp", "lossless.webp")  # as many seconds to write as to read


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in LARGEST]
)
def test_the_largest_photo_takes_no_more(tmp_path, name):
    (width, height), options = LARGEST[name]
    tile = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    picture = np.tile(tile, (height // 100, width // 100, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side, so that it has to be turned
    Image.fromarray(picture).save(tmp_path / name, exif=exif, **options)
    del picture
    assert megabytes(f"datasets.load_photo({str(tmp_path / name)!r}, None)") < MOST


def test_the_measure_sees_what_is_taken():
    assert megabytes("np.ones(75_000_000)") > 550
