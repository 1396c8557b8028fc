"""Chapter 20's search for wrong labels accuses those that cleanlab accuses.

cleanlab lives in an environment of its own, which `make test-peers` makes and runs this with.
"""

import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "peers" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="make test-peers makes what it needs")


def test_confident_learning_is_cleanlab_s(tmp_path):
    (notebook,) = (ROOT / "notebooks").glob("20_*.ipynb")
    cells = [cell.source for cell in nbformat.read(notebook, 4).cells]
    (source,) = (text for text in cells if "def by_confidence(" in text)
    seen = []

    def predict(*args, **options):
        seen.append(cross_val_predict(*args, **options))
        return seen[-1]

    names = {"np": np, "LogisticRegression": LogisticRegression, "cross_val_predict": predict}
    exec(source, names)
    every, ours = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 2, 300)
        rows = rng.normal(0, 1.5, (300, 4)) + truth[:, None]
        labels = np.where(rng.random(300) < rng.uniform(0.02, 0.4), 1 - truth, truth)
        every.append(labels)
        ours.append(names["by_confidence"](rows, labels)[1])
    asked, answered = tmp_path / "asked.npz", tmp_path / "answered.npz"
    np.savez(asked, labels=every, probabilities=seen)
    worker = Path(__file__).with_name("_with_cleanlab.py")
    subprocess.run([PYTHON, worker, asked, answered], check=True)
    theirs = np.load(answered)["accused"]
    assert 0 < theirs.mean() < 0.5
    np.testing.assert_array_equal(ours, theirs)
