"""What the course's methods cost beside libraries that need environments of their own.

Needs the environments of `make peers-env`, 4 GB and about half an hour:
python tests/benchmarks/peers.py [rounds]
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

import keras
import numpy as np
from _bench import ROOT, Timing, duration, publish, ratio, table, verdict

from course_utils import datasets, models
from course_utils.lime_image import superpixels

HERE = Path(__file__).parent
OURS = "this course"
LEAST = 0.9  # correlation of maps
# Each process with its Python and the libraries that it speaks for.
PROCESSES = {
    "course": (Path(sys.executable), (OURS,)),
    "xplique": (ROOT / ".venv/xplique/bin/python", ("Xplique",)),
    "torch": (ROOT / ".venv/peers/bin/python", ("captum", "shap", "zennit")),
}
LIBRARIES = {library: name for name, (_, some) in PROCESSES.items() for library in some}

TEXT = """Libraries that cannot live in the course's environment have their own: Xplique, which \
needs an older TensorFlow, and captum, shap and Zennit, which need torch. Each environment is a \
process with the same weights and images and one thread; within every round they take turns. A \
cell is processor time, the median of the rounds. In brackets stands the median ratio to the bare \
passes of its own framework in the same round: forward, or forward and back where the method needs \
a gradient, on as many images in batches of the same size, compiled in TensorFlow; each batch \
comes from numpy, which what covers an image within TensorFlow does without. Of the {samples:,} \
images for Shapley values this course runs {run:,}, all that whole orders in pairs need. A dash \
means that a library does not have the method, or that it is not asked here. Before anything is \
timed, each library's maps are compared with the course's, each map divided by its largest value: \
the last column is the least of their correlations, and a library below {least} is left out. Where \
a method draws at random, more samples are compared than are timed. What is left between the maps \
is chance, and rules that differ: how LIME weighs its samples, integrated gradients are summed, \
Grad-CAM's maps stretched.

The tank detector, 64 × 64 pixels, with {versions}. Bare passes forward and back of {images} \
images take {bare}. Rounds: {rounds}.

{shown}

{verdict}
"""


class Row(NamedTuple):
    """A method, and how much of its work is timed, compared, and needs a bare pass."""

    method: str
    amount: int
    unit: str
    compared: int
    back: bool

    def __str__(self):
        return f"{self.method}, {self.amount} {self.unit}"


ROWS = (
    Row("saliency", 64, "images", 64, True),
    Row("gradient × input", 64, "images", 64, True),
    Row("SmoothGrad", 50, "samples", 2000, True),
    Row("integrated gradients", 64, "steps", 64, True),
    Row("Grad-CAM", 64, "images", 64, True),
    Row("occlusion", 64, "places", 64, False),
    Row("LIME", 1000, "samples", 4000, False),
    Row("RISE", 1000, "samples", 8000, False),
    Row("Shapley values", 1000, "samples", 10000, False),
    Row("relevance", 64, "images", 64, True),
)


class Worker(NamedTuple):
    """A process that speaks for libraries, and what it says at first: see `_peer.serve`."""

    process: subprocess.Popen
    methods: list
    versions: dict


def start(name, given):
    """Start a process in its own environment."""
    counts = ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM", "OPENBLAS_NUM")
    quiet = {"PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [PROCESSES[name][0], HERE / f"_peer_{name}.py", given],
        env=os.environ | {f"{count}_THREADS": "1" for count in counts} | quiet,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Worker(process, **hear(process))


def ask(worker, name, amount, path=None):
    """Have a method run once; its processor time and its time on the clock."""
    line = json.dumps([name, amount, path and str(path)])
    print(line, file=worker.process.stdin, flush=True)
    return hear(worker.process)


def hear(process):
    """A process's next answer; where it has ended, so does this."""
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{process.args[1].name} ended with {process.wait()}.")
    return json.loads(line)


def for_torch(model):
    """A chain of Keras layers as the list that `build` of tests/peers/_with_zennit.py takes.

    Also each layer's place in it, with its activation.
    """
    kinds = {"Conv2D": "conv", "MaxPooling2D": "max", "Flatten": "flatten", "Dense": "dense"}
    found, places = [], {}
    for layer in model.layers:
        options = {}
        if isinstance(layer, keras.layers.Conv2D):
            options = {"stride": 1, "dilation": 1, "padding": layer.padding}
            options |= {"bias": True, "depthwise": False}
        found.append([kinds[type(layer).__name__], options])
        if getattr(layer, "activation", None) is keras.activations.relu:
            found.append(["relu", {}])
        places[layer.name] = len(found) - 1
    return found, places


def write(path, model, images, layer, batch, patch):
    """Put what the processes work on into an .npz."""
    arrays = {f"weight_{i}": weight for i, weight in enumerate(model.get_weights())}
    layers, places = for_torch(model)
    np.savez(
        path,
        **arrays,
        weights=len(arrays),
        keras=model.to_json(),
        torch=json.dumps(layers),
        layer=layer,
        module=places[layer],
        images=images,
        segments=superpixels(images[0], n_segments=49),
        noise=0.15 * np.ptp(images[0]),
        batch=batch,
        patch=patch,
    )


def agreements(row, workers, folder):
    """The correlation of each library's map with the course's, for the libraries that have it."""
    maps = {}
    for library, process in LIBRARIES.items():
        name = f"{library}: {row.method}"
        if name in workers[process].methods:
            ask(workers[process], name, row.compared, folder / "map.npy")
            maps[library] = on_one_scale(np.load(folder / "map.npy"))
    return {library: np.corrcoef(maps[OURS], found)[0, 1] for library, found in maps.items()}


def on_one_scale(maps):
    """Maps (N, H, W) or (H, W) in a row, each divided by its largest absolute value, if any."""
    flat = np.reshape(maps, (-1, maps.shape[-2] * maps.shape[-1])).astype(float)
    largest = np.abs(flat).max(axis=1, keepdims=True)
    return (flat / np.where(largest, largest, 1)).ravel()


def measure(row, libraries, workers, rounds):
    """For each library, and for each process's bare passes, its `Timing`."""
    bare = "bare: back" if row.back else "bare: forward"
    processes = {LIBRARIES[library] for library in libraries}
    turns = {
        name: {name: bare}
        | {one: f"{one}: {row.method}" for one in libraries if LIBRARIES[one] == name}
        for name in PROCESSES
        if name in processes
    }
    timings = {key: Timing([], [], float("nan")) for turn in turns.values() for key in turn}
    for n in range(rounds + 1):
        for process, turn in turns.items():
            ask(workers[process], bare, row.amount)  # caches are other processes' at first
            for key, name in turn.items():
                cpu, clock = ask(workers[process], name, row.amount)
                if n:  # the first does not count
                    timings[key].cpu.append(cpu)
                    timings[key].seconds.append(clock)
    return timings


def times(timings, library):
    """Each round's processor time."""
    return timings[library].cpu


def shares(timings, library):
    """Each round's ratio of the processor time to the bare passes in the same process."""
    bare = timings[LIBRARIES[library]].cpu
    return [a / b for a, b in zip(timings[library].cpu, bare, strict=True)]


def verdicts(found):
    """What the two numbers of a cell say, each in its sentences."""
    beside = "processor time in units of the bare passes of its own framework"
    said = []
    for measured, what in ((times, "processor time"), (shares, beside)):
        rows = [
            (row, library, measured(timings, OURS), measured(timings, library))
            for row, timings in found.items()
            for library in LIBRARIES
            if library in timings and library != OURS
        ]
        said.append(verdict(rows, what))
    return "\n\n".join(said)


def cell(library, timings, agree):
    """Processor time and ratio, or why there is none."""
    if library in timings:
        time = duration(median(times(timings, library)))
        return f"{time} ({median(shares(timings, library)):.2f})"
    return "left out" if library in agree else "–"


def main(rounds=11):
    missing = [name for name, (python, _) in PROCESSES.items() if not python.exists()]
    if missing:
        print(f"Not measured: make peers-env makes the environments of {' and '.join(missing)}.")
        return
    scenes = datasets.make_scenes(64, confounded=False, seed=0).images
    found, lines = {}, []
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.npz"
        write(given, models.load_trained("scenes_fair"), scenes, layer="conv_3", batch=64, patch=8)
        workers = {name: start(name, given) for name in PROCESSES}
        for row in ROWS:
            agree = agreements(row, workers, Path(folder))
            kept = [library for library, alike in agree.items() if alike >= LEAST]
            found[str(row)] = timings = measure(row, kept, workers, rounds)
            cells = [cell(library, timings, agree) for library in LIBRARIES]
            lines.append((row, *cells, f"{min(agree.values()):.4f}"))
            print(*lines[-1], sep=" | ", flush=True)
        for worker in workers.values():
            worker.process.communicate()
    first = next(iter(found.values()))
    (samples,) = (row.amount for row in ROWS if row.method == "Shapley values")
    pair = 2 * int(superpixels(scenes[0], n_segments=49).max())  # an order and its reverse
    named = {
        name: [" ".join(pair) for pair in worker.versions.items()]
        for name, worker in workers.items()
    }
    text = TEXT.format(
        versions="; ".join(
            f"{', '.join(some[1:])} on {some[0]}" for some in named.values() if some[1:]
        ),
        images=len(scenes),
        samples=samples,
        run=2 + (samples - 2) // pair * pair,
        bare=", ".join(f"{duration(median(first[n].cpu))} in {named[n][0]}" for n in PROCESSES),
        least=LEAST,
        rounds=rounds,
        shown=table(("", *LIBRARIES, "agreement"), lines),
        verdict=verdicts(found),
    )
    numbers = {
        f"{row}: {library}": {
            "seconds": median(times(timings, library)),
            "bare": median(shares(timings, library)),
            "beside the course": ratio(timings[library], timings[OURS], "cpu"),
        }
        for row, timings in found.items()
        for library in LIBRARIES
        if library in timings
    }
    publish("peers", "Libraries in environments of their own", text, numbers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
