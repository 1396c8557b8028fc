"""metrics scores what Quantus scores, on the same network, images and maps.

Quantus needs torch (its TensorFlow part, a Keras before 3), which the course does not: both live in
an environment of their own, which `make test-peers` makes and runs this with.
"""

import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from course_utils import metrics
from course_utils._fidelity import _painted_over

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "peers" / "bin" / "python"
SHARES = (0.125, 0.25, 0.5, 0.75)
SAMPLES, RADIUS, SEED = 5, 0.3, 7

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="make test-peers makes what it needs")

rng = np.random.default_rng(0)
IMAGES = rng.normal(size=(24, 12, 16)).astype(np.float32)
MAPS = rng.normal(size=IMAGES.shape)
MASKS = np.zeros(IMAGES.shape, bool)
for mask, row, column in zip(MASKS, *rng.integers(0, 6, (2, 24)), strict=True):
    mask[row : row + 5, column : column + 7] = True
FIRST, SECOND = (rng.normal(size=size).astype(np.float32) for size in [(192, 20), (20, 3)])


@pytest.fixture(scope="module")
def model():
    inner = [keras.Input((12, 16, 1)), layers.Flatten(), layers.Dense(20, "relu", use_bias=False)]
    network = keras.Sequential([*inner, layers.Dense(3, use_bias=False)])
    network.set_weights([FIRST, SECOND])
    return network


@pytest.fixture(scope="module")
def labels(model):
    return model(IMAGES[..., np.newaxis]).numpy().argmax(axis=1)


@pytest.fixture(scope="module")
def theirs(labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantus")
    asked, answered = folder / "asked.npz", folder / "answered.npz"
    noise = np.random.default_rng(SEED)
    noise = [noise.uniform(-RADIUS, RADIUS, (12, 16, 1)) for _ in range(SAMPLES)]
    arrays = {"images": IMAGES, "maps": MAPS, "masks": MASKS, "labels": labels, "first": FIRST}
    np.savez(asked, second=SECOND, noise=noise, shares=SHARES, **arrays)
    worker = Path(__file__).with_name("_with_quantus.py")
    subprocess.run([PYTHON, worker, asked, answered], check=True)
    return np.load(answered)


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (metrics.pointing_game, "PointingGame"),
        (metrics.mass_inside, "RelevanceMassAccuracy"),
        (metrics.rank_inside, "RelevanceRankAccuracy"),
    ],
)
def test_a_mark_against_the_truth_is_that_of_quantus(metric, name, theirs):
    np.testing.assert_allclose(metric(np.abs(MAPS), MASKS), theirs[name], atol=1e-9)


def test_the_deletion_curve_is_pixel_flipping(model, labels, theirs):
    options = {"steps": MAPS[0].size, "score": "logit"}
    curve = metrics.deletion_curve(model, IMAGES[..., np.newaxis], labels, MAPS, **options)
    np.testing.assert_allclose(curve.scores[:, 1:], theirs["PixelFlipping"], atol=2e-4)


def test_infidelity_is_quantus_s_where_each_patch_is_covered_alone(model, labels, theirs):
    """Quantus multiplies the map by what was taken away; ours holds what each pixel adds."""
    images = IMAGES[..., np.newaxis]
    found = metrics.infidelity(model, images, labels, MAPS * IMAGES, patch=4)
    np.testing.assert_allclose(found, theirs["Infidelity"], rtol=1e-4)


def test_the_sensitivity_is_quantus_s_under_the_same_noise(model, labels, theirs):
    def explain(model, images, targets):
        return np.sin(3 * images[..., 0]) * images[..., 0]

    options = {"radius": RADIUS, "samples": SAMPLES, "seed": SEED}
    found = metrics.max_sensitivity(explain, model, IMAGES[..., np.newaxis], labels, **options)
    np.testing.assert_allclose(found, theirs["MaxSensitivity"], rtol=1e-5)


def test_road_paints_over_as_quantus_does_and_counts_as_many_right_answers(model, labels, theirs):
    order = np.argsort(-MAPS.reshape(24, -1), axis=1)
    for share, pictures in zip(SHARES, theirs["imputed"], strict=True):
        for image, ranks, other in zip(IMAGES, order, pictures, strict=True):
            gone = ranks[: round(share * ranks.size)]
            found = _painted_over(image[..., np.newaxis], gone, np.zeros((12, 16, 1)))[..., 0]
            np.testing.assert_allclose(found, other, atol=1e-5)
    options = {"shares": SHARES, "noise": 0.0, "score": "logit"}
    curves = [
        metrics.road_curve(model, IMAGES[..., np.newaxis], k, MAPS, **options).scores[:, 1:]
        for k in range(3)
    ]
    right = np.argmax(curves, axis=0) == labels[:, np.newaxis]
    assert 0.2 < right.mean() < 0.95
    np.testing.assert_allclose(right.mean(axis=0), theirs["ROAD"], atol=1e-9)


def test_the_rank_correlation_is_quantus_s(theirs):
    np.testing.assert_allclose(
        metrics.rank_correlation(MAPS, IMAGES), theirs["spearman"], atol=1e-9
    )
