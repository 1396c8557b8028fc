"""How long `import course_utils` and its modules take on top of TensorFlow.

Run `python tests/benchmarks/import_time.py`. It starts Python anew for each figure, in turns, and
prints medians of the processor's seconds, which other programs on the machine disturb little.
"""

import resource
import statistics
import subprocess
import sys

ROUNDS = 7
IMPORTS = {
    "TensorFlow": "import tensorflow",
    "TensorFlow and the package": (
        "import tensorflow, course_utils; from course_utils import "
        "datasets, inspection, metrics, models, occlusion, plots, quiz"
    ),
    "course_utils alone": "import course_utils",
    "course_utils.datasets": "import course_utils.datasets",
}


def seconds(code):
    """Processor seconds of a new Python that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    taken = {name: [] for name in IMPORTS}
    for _ in range(ROUNDS):
        for name, code in IMPORTS.items():
            taken[name].append(seconds(code))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.2f} s ({min(taken[name]):.2f} to {max(taken[name]):.2f})")
    both, tensorflow = medians["TensorFlow and the package"], medians["TensorFlow"]
    print(f"the package adds {both - tensorflow:.2f} s to TensorFlow")
