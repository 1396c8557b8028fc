"""shapley gives what shap gives: exactly where all coalitions are tried, else within the errors.

shap lives in an environment of its own, which `make test-peers` makes and runs this with.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from course_utils import datasets, models
from course_utils.lime_image import superpixels
from course_utils.shapley import explain_parts, shapley_values

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "peers" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="make test-peers makes what it needs")


def by_shap(tables, folder):
    """From each game's name to shap's values."""
    asked, answered = folder / "asked.npz", folder / "answered.npz"
    np.savez(asked, **tables)
    worker = Path(__file__).with_name("_with_shap.py")
    subprocess.run([PYTHON, worker, asked, answered], check=True)
    return np.load(answered)


def test_exact_values_are_those_of_shap(tmp_path):
    rng = np.random.default_rng(0)
    games = {f"exact_{n}": rng.normal(size=2**n) for n in range(2, 11)}
    theirs = by_shap(games, tmp_path)
    for name, worths in games.items():
        np.testing.assert_allclose(shapley_values(worths), theirs[name], atol=1e-6)


def test_the_tank_detector_has_the_values_of_kernel_shap_within_the_errors(tmp_path):
    """Each of the two draws samples of its own, about as many."""
    scenes = datasets.make_scenes(8, confounded=False, seed=0)
    image = scenes.images[int(np.argmax(scenes.labels))]
    detector = models.load_trained("scenes_fair")
    segments = superpixels(image, "kmeans", 12)
    parts = segments.max() + 1
    coalitions = np.arange(2**parts)[:, np.newaxis] >> np.arange(parts) & 1
    pictures = np.where(coalitions[:, segments, np.newaxis] == 1, image, np.float32(0))
    logits = models.logit_model(detector).predict(pictures, verbose=0)[:, 0].astype(float)
    exact = shapley_values(logits)
    ours = explain_parts(detector, image, 1, segments=segments)
    np.testing.assert_allclose(ours.values, exact, atol=1e-4)
    drawn = explain_parts(detector, image, 1, segments=segments, samples=1000)
    theirs = by_shap({"kernel": logits}, tmp_path)["kernel"]
    np.testing.assert_allclose(theirs.sum(), drawn.values.sum(), atol=1e-3)
    # Both drew about as many samples. shap's errors are alike for all parts, ours are not.
    printed = np.sqrt((drawn.errors**2).mean())
    assert np.abs(theirs - exact).max() < 4 * printed
    assert np.sqrt(((drawn.values - theirs) ** 2).mean()) < 2 * printed
