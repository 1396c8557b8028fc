"""Run the tests as other machines would: other kernels, threads, orders and batches.

    python tests/anywhere.py            (make test-anywhere: the quick part, under 15 minutes)
    python tests/anywhere.py --whole    every combination, the slow tests and the chapters too

An older processor is this one with its newer instructions switched off: oneDNN's, OpenBLAS's and
numpy's. What TensorFlow computes without oneDNN was compiled once for all.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (1, 7, 64)
KERNELS = {
    "without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "oneDNN, AVX2": {
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    },
    "oneDNN, SSE4.1": {
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    },
}
# The quick part: each kernel, number of threads and batch size. make test is without oneDNN.
QUICK = [("oneDNN", 2, 64), ("oneDNN, AVX2", 1, 1), ("oneDNN, SSE4.1", 1, 7)]
# These look at files, processes, settings and a class's grades, whose arithmetic is nobody's.
NO_ARITHMETIC = ("at_scale", "book", "build", "contributing", "data_build", "environment")
NO_ARITHMETIC += ("keras_vis", "memory", "notebooks", "package", "photo", "plots", "quiz")
NO_ARITHMETIC += ("scatter", "tally", "user_settings", "workflow")
CLASSROOM = ("answers", "class", "clean", "collecting", "grading", "handing_on", "hostile")
CLASSROOM += ("judge", "labs", "look", "open", "regrading")


def circumstances(kernel, threads):
    """The environment of a process with that kernel and so many threads."""
    names = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    fewer = dict.fromkeys(names, str(threads))
    # Threads that wait sleep, or those of two processes would take turns in waiting.
    fewer |= {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
    seed = {"PYTHONHASHSEED": str(random.randrange(2**32)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {**os.environ, **fewer, **seed, **KERNELS[kernel]}


def run_tests(kernel, threads, batch, whole=False):
    """Run the tests, in a new order; returns whether they pass."""
    order = random.randrange(10_000)
    environment = circumstances(kernel, threads)
    command = [sys.executable, "-m", "pytest", "tests", "-q", "-n", "2", "--dist", "worksteal"]
    command += ["--ignore", "tests/site", f"--batch={batch}", f"--shuffle={order}"]
    if not whole:
        command += ["-m", "not slow"]
        command += [f"--ignore=tests/test_{name}.py" for name in NO_ARITHMETIC]
        command += [f"--ignore=tests/labs/test_{name}.py" for name in CLASSROOM]
    say = f"{kernel}; {threads} thread{'s' * (threads > 1)}; batches of {batch}"
    print(f"\n== {say}; order {order}; PYTHONHASHSEED={environment['PYTHONHASHSEED']}", flush=True)
    begun = time.monotonic()
    passed = subprocess.run(command, cwd=ROOT, env=environment).returncode == 0
    return f"{'passed' if passed else 'FAILED'} in {time.monotonic() - begun:4.0f} s: {say}", passed


def chapters(kernel):
    """Run every chapter, whose assertions say that by hand and by package agree."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook"]
            command += ["--output-dir", folder, str(path), "--log-level", "ERROR"]
            if subprocess.run(command, cwd=path.parent, env=circumstances(kernel, 1)).returncode:
                failed.append(path.stem)
    said = f"FAILED: {', '.join(failed)}" if failed else "passed"
    return f"{said}: the chapters, {kernel}", not failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--whole", action="store_true", help="every combination, and the chapters")
    if parser.parse_args().whole:
        every = enumerate(product(KERNELS, (1, 2)))
        runs = [run_tests(*both, BATCHES[i % len(BATCHES)], whole=True) for i, both in every]
        runs += [chapters(kernel) for kernel in KERNELS if kernel != "oneDNN"]  # make book's
    else:
        runs = [run_tests(*run) for run in QUICK]
    print("", *(said for said, _ in runs), sep="\n")
    sys.exit(not all(passed for _, passed in runs))
