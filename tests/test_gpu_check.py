"""The comparison of processors and GPU, whose own arithmetic no test here can see."""

import sys

import gpu_check
import numpy as np
import pytest
import tensorflow as tf


def found(**maps):
    arrays = {name.replace("_", " "): np.array(values) for name, values in maps.items()}
    return arrays | {f"{name}: seconds": np.array(0.5) for name in arrays}


def test_what_differs_is_named_and_what_is_rounded_otherwise_is_not(capsys):
    there = found(saliency=[1.0, 4.0], Grad_CAM=[0.0, 2.0], LIME=[1.0, 1.0])
    here = found(saliency=[1.0, 4.001], Grad_CAM=[0.0, 2.1], LIME=[1.0, np.nan])
    assert gpu_check.report(here, there) == ["Grad CAM", "LIME"]
    printed = capsys.readouterr().out.splitlines()
    assert [line.endswith("DIFFERS") for line in printed[1:]] == [False, True, True]


@pytest.mark.slow
def test_every_method_is_computed_on_both_networks(tmp_path):
    gpu_check.compute(tmp_path / "maps.npz")
    with np.load(tmp_path / "maps.npz") as arrays:
        maps = {name: arrays[name] for name in arrays if not name.endswith(": seconds")}
    assert len(maps) == 18
    assert all(np.ptp(values, axis=(1, 2)).all() for values in maps.values())


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU here")
def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    gpu_check.main()
    assert capsys.readouterr().out == (
        "There is no GPU here that TensorFlow sees: nothing was compared. Where there is one, its "
        'libraries are missing: .venv/bin/python -m pip install "tensorflow[and-cuda]".\n'
    )
