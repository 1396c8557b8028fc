"""What users have around the package: their keras.json, their Keras's backend, their debugging."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOAD = """
import importlib
import keras
ours = keras.backend.backend
keras.backend.backend = lambda: "jax"  # which need not be installed
for module in ("gradients", "models"):
    try:
        importlib.import_module(f"course_utils.{module}")
    except ImportError as error:
        print(error)
keras.backend.backend = ours
from course_utils import models
assert keras.config.image_data_format() == "channels_first"
for name in ("digits", "digits_vae", "squares", "scenes_fair", "speech"):
    models.load_trained(name)
models.imagenet_classifier()
assert keras.config.image_data_format() == "channels_first"
"""
SLOPES = """
import keras, numpy as np
keras.config.set_image_data_format("channels_last")
from keras import layers
from course_utils import gradients
inputs = keras.Input((8, 8, 2))
x = layers.Add()([layers.Conv2D(2, 3, padding="same")(inputs), inputs])
x = layers.GlobalAveragePooling2D()(layers.LeakyReLU(0.1, name="bent")(x))
model = keras.Model(inputs, x)
image = -np.ones((1, 8, 8, 2), np.float32)
wrong = not np.allclose(model(image), model.predict(image, verbose=0))
gradients.saliency_map(model, image, 0)
print("predict is wrong:", wrong)
"""


def run(code, **settings):
    """Run code in a Python of its own, with these environment variables."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What came of it all in one process: another backend first, then a keras.json, a slope."""
    home = tmp_path_factory.mktemp("keras")
    chosen = {"image_data_format": "channels_first", "backend": "tensorflow"}
    (home / "keras.json").write_text(json.dumps(chosen))
    return run(LOAD + SLOPES, KERAS_HOME=str(home), TF_ENABLE_ONEDNN_OPTS="1")


def test_the_course_s_networks_load_whatever_the_user_s_keras_json_says(loaded):
    assert loaded.returncode == 0, loaded.stderr


def test_another_backend_of_keras_is_refused_in_one_sentence(loaded):
    said = loaded.stdout.splitlines()
    assert len(said) == 3  # the last is of the slope
    for line in said[:2]:
        assert line.startswith("course_utils explains with TensorFlow, and Keras runs on jax")
        assert "KERAS_BACKEND" in line


def test_a_slope_that_tensorflow_forgets_is_told(loaded):
    wrong = "predict is wrong: True" in loaded.stdout
    assert ("computes bent with a slope of 0.2" in loaded.stderr) == wrong


@pytest.mark.slow
def test_without_onednn_a_slope_is_not_forgotten():
    done = run(SLOPES, TF_ENABLE_ONEDNN_OPTS="0")
    assert done.returncode == 0, done.stderr
    assert "predict is wrong: False" in done.stdout
    assert "with a slope of" not in done.stderr
