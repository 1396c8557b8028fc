"""Compare the package's maps on this machine's GPU with those of its processors: `make gpu-check`.

Under five minutes. For each method: the largest difference, relative to the map's largest value,
and the time of the second call, which compiles nothing, on either. Where there is no GPU it says
so and compares nothing.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EXACT = 1e-3  # TF32, with which a GPU rounds to ten bits, is switched off


def methods(model, images, classes):
    """Each method of the course as a function without arguments, on small settings."""
    from course_utils import cam, gradients, lime_image, models, occlusion, relevance, shapley

    logits = models.logit_model(model)
    given = (logits, images, classes)
    return {
        "occlusion": lambda: occlusion.occlusion_map(*given, patch=32, score="logit"),
        "RISE": lambda: occlusion.rise_map(*given, samples=64, score="logit"),
        "saliency": lambda: gradients.saliency_map(*given),
        "integrated gradients": lambda: gradients.integrated_gradients(*given),
        "SmoothGrad": lambda: gradients.smoothgrad(*given),
        "Grad-CAM": lambda: cam.grad_cam(*given),
        "LIME": lambda: lime_image.lime_map(*given, samples=64, score="logit"),
        "Shapley values": lambda: shapley.shapley_map(*given, n_segments=12, samples=100),
        "relevance": lambda: relevance.relevance_map(*given),
    }


def compute(out):
    """Run every method on what TensorFlow finds here; write maps and seconds to the file `out`."""
    import tensorflow as tf

    from course_utils import datasets, models

    tf.config.experimental.enable_tensor_float_32_execution(False)
    scenes = datasets.make_scenes(4, confounded=False, seed=0)
    photos = models.imagenet_classifier()
    photo = photos.preprocess(np.stack([datasets.load_photo(n) for n in ("panda", "coffee")]))
    networks = {
        "scenes": (models.load_trained("scenes_fair"), scenes.images, scenes.labels),
        "photos": (photos.model, photo, np.argmax(photos.model(photo), -1)),
    }
    found = {}
    for network, arguments in networks.items():
        for name, explain in methods(*arguments).items():
            explain()
            begun = time.perf_counter()
            found[f"{network}: {name}"] = explain()
            found[f"{network}: {name}: seconds"] = time.perf_counter() - begun
    np.savez(out, **found)


def elsewhere(out, **environment):
    """What `compute` finds in a process of its own with that environment."""
    command = [sys.executable, __file__, "--compute", out]
    subprocess.run(command, check=True, env={**os.environ, **environment})
    with np.load(out) as arrays:
        return dict(arrays)


def report(here, there):
    """Print a line for each method; return the names of those that differ by more than `EXACT`."""
    differ = []
    print(f"{'':32} {'difference':>10} {'processors':>11} {'GPU':>9}")
    for name in (name for name in here if not name.endswith(": seconds")):
        apart = np.abs(here[name] - there[name]).max() / max(np.abs(there[name]).max(), 1e-12)
        seconds = [float(found[f"{name}: seconds"]) for found in (there, here)]
        print(f"{name:32} {apart:10.1e} {seconds[0]:9.2f} s {seconds[1]:7.2f} s", end="")
        print("" if apart <= EXACT else "  DIFFERS")
        differ += [name] * (not apart <= EXACT)
    return differ


def main():
    """Compare, and exit with 1 if a method differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compute", metavar="FILE", help=argparse.SUPPRESS)
    out = parser.parse_args().compute
    if out:
        return compute(out)
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return print(
            "There is no GPU here that TensorFlow sees: nothing was compared. Where there is one, "
            'its libraries are missing: .venv/bin/python -m pip install "tensorflow[and-cuda]".'
        )
    print(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "A GPU"))
    with tempfile.TemporaryDirectory() as folder:
        here = elsewhere(str(Path(folder) / "gpu.npz"))
        there = elsewhere(str(Path(folder) / "cpu.npz"), CUDA_VISIBLE_DEVICES="-1")
    differ = report(here, there)
    sys.exit(f"{len(differ)} methods differ by more than {EXACT}." if differ else 0)


if __name__ == "__main__":
    main()
