"""concepts gives what scikit-learn's ridge and torch's gradients give on the same activations.

torch lives in an environment of its own, which `make test-peers` makes and runs this with.
"""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from course_utils import concepts, datasets, embedding, models

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "peers" / "bin" / "python"

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="make test-peers makes what it needs")


def test_vectors_slopes_and_tcav_scores_are_those_of_another_implementation(tmp_path):
    scenes = datasets.make_scenes(80, confounded=False, seed=4)
    model = models.load_trained("scenes_fair")
    shuffled = np.random.default_rng(0).permuted(np.tile(scenes.cloudy, (20, 1)), axis=1).T
    labels = np.column_stack([scenes.cloudy, scenes.labels == 1, shuffled])
    maps = embedding.layer_outputs(model, scenes.images, ["conv_3"])["conv_3"]
    (kernel_1, bias_1), (kernel_2, bias_2) = (layer.get_weights() for layer in model.layers[-2:])
    asked, answered = tmp_path / "asked.npz", tmp_path / "answered.npz"
    head = {"kernel_1": kernel_1, "bias_1": bias_1, "kernel_2": kernel_2, "bias_2": bias_2}
    np.savez(asked, maps=maps, labels=labels.astype(float), ridge=0.05, **head)
    worker = Path(__file__).with_name("_with_torch.py")
    subprocess.run([PYTHON, worker, asked, answered], check=True)
    theirs = np.load(answered)

    vectors = concepts.concept_vectors(model, scenes.images, labels, layer="conv_3", ridge=0.05)
    np.testing.assert_allclose(vectors.reshape(len(vectors), -1), theirs["vectors"], atol=1e-5)
    ask = {"layer": "conv_3", "vectors": vectors}
    slopes = concepts.sensitivities(model, scenes.images, 1, **ask)
    largest = np.abs(theirs["slopes"]).max()
    np.testing.assert_allclose(slopes, theirs["slopes"], atol=1e-4 * largest)
    scores = concepts.tcav_scores(model, scenes.images, 1, **ask)
    # A slope of nothing but rounding may have either sign.
    unsure = (np.abs(theirs["slopes"]) < 1e-4 * largest).mean(axis=0)
    assert (np.abs(scores - theirs["tcav"]) <= unsure).all()
    assert unsure.max() < 0.05
