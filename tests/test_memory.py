"""No loader takes more than 500 MB: each is measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MOST = 500  # megabytes
# Prints how many megabytes the peak grows by, for each of some calls. What is imported, and
# TensorFlow's own start, is not the loader's.
MEASURE = """
import os, re, resource, sys
import numpy as np
from course_utils import datasets
{start}
def peak():
    try:  # getrusage would count, on Linux, the peak of the process that started this one
        return int(re.search("VmHWM:(.*) kB", open("/proc/self/status").read())[1]) / 1e3
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
def measure(call):
    before = peak()
    kept = eval(call)
    print(peak() - before, flush=True)
if len(sys.argv) == 2:
    measure(sys.argv[1])
for call in sys.argv[1:] if len(sys.argv) > 2 else ():
    if not os.fork():  # a copy that has imported all, and loaded nothing
        measure(call)
        os._exit(0)
    os.wait()
"""
TENSORFLOW = "import keras; from course_utils import models; keras.layers.Dense(1).build((1, 1))"
# What Keras would download, in its size.
FULL = """
def parts(n):
    return np.ones((n, 28, 28), np.uint8), np.ones(n, np.uint8)
datasets._download_mnist = lambda: (parts(60_000), parts(10_000))
"""
LOADERS = (
    "datasets.load_digits()",
    "datasets.load_digits(full=True)",
    "datasets.make_squares(1000, seed=0)",
    "datasets.make_scenes(200, confounded=True, seed=0)",
    "datasets.load_speech()",
    "[datasets.load_photo(name) for name in datasets.photo_names()]",
)
NETWORKS = "('digits', 'digits_vae', 'squares', 'scenes_confounded', 'scenes_fair', 'speech')"


def megabytes(*calls, start=""):
    """By how much the peak memory of a new process grows when it evaluates each of `calls`."""
    command = [sys.executable, "-c", MEASURE.format(start=start), *calls]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return dict(zip(calls, map(float, run.stdout.split()), strict=True))


def test_no_loader_takes_over_500_megabytes():
    seen = "np.ones(75_000_000)"
    found = megabytes(*LOADERS, seen, start=FULL)
    assert found.pop(seen) > 550, "the measure sees what is taken"
    assert {call: taken for call, taken in found.items() if taken >= MOST} == {}


def test_the_networks_take_no_more_together():
    call = f"[models.imagenet_classifier(), *map(models.load_trained, {NETWORKS})]"
    assert megabytes(call, start=TENSORFLOW)[call] < MOST


# The largest files of each kind that load_photo takes: 50 megapixels, or 25.
LARGEST = {
    "plain.jpg": ((10_000, 5_000), {}),
    "plain.png": ((10_000, 5_000), {"compress_level": 1}),
    "progressive.jpg": ((5_000, 5_000), {"progressive": True, "subsampling": 0}),
    "lossy.webp": ((5_000, 5_000), {"method": 0}),
    "lossless.webp": ((5_000, 5_000), {"lossless": True, "method": 0, "quality": 0}),
}
QUICK = ["plain.jpg", "progressive.jpg"]
SLOW = sorted({*LARGEST} - {*QUICK})  # as many seconds to write as to read


@pytest.mark.parametrize("names", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_the_largest_photos_take_no_more(tmp_path, names):
    tile = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side, so that it has to be turned
    for name in names:
        (width, height), options = LARGEST[name]
        picture = Image.fromarray(np.tile(tile, (height // 100, width // 100, 1)))
        picture.save(tmp_path / name, exif=exif, **options)
    calls = [f"datasets.load_photo({str(tmp_path / name)!r}, None)" for name in names]
    found = megabytes(*calls)
    assert {call: taken for call, taken in found.items() if taken >= MOST} == {}
