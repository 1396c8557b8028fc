"""A contender of peers.py: a process that answers, a line at a time, what a method takes or finds.

Runs in the peers' environments, so it needs nothing but numpy.
"""

import json
import os
import sys
import time
from importlib.metadata import version

import numpy as np


def given():
    """What peers.py gives its contenders, in the .npz that the command line names: arrays."""
    with np.load(sys.argv[1]) as arrays:
        return dict(arrays)


def weights(arrays):
    """The network's weights in the order of Keras."""
    return [arrays[f"weight_{i}"] for i in range(int(arrays["weights"]))]


def serve(methods, *packages):
    """Answer the lines of standard input until it ends.

    `methods` is a dict from names, "library: method", to functions of one number, how much of its
    work to do, that return a map. The first line out says what is there; then each line in,
    [name, number, path or null], is answered with the processor time and the time on the clock
    that the method took, and its map is saved where the path says.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    versions = {package: version(package) for package in packages}
    print(json.dumps({"methods": list(methods), "versions": versions}), file=answers)
    for line in sys.stdin:
        name, amount, path = json.loads(line)
        cpu, clock = time.process_time(), time.perf_counter()
        found = methods[name](amount)
        times = time.process_time() - cpu, time.perf_counter() - clock
        if path:
            np.save(path, found)
        print(json.dumps(times), file=answers)


def in_batches(run, images, count, batch):
    """Call `run` on `count` images, `batch` at a time, taken over and over from `images`."""
    for start in range(0, count, batch):
        run(images[np.arange(start, min(start + batch, count)) % len(images)])
