"""What a whole data set costs: images per second and peak memory, alone and with two workers.

Draws the scenes to a file first, 2.4 GB at the 50,000 of `make scale`:
python tests/benchmarks/at_scale.py [counts of images]
Without counts: saliency of 1,000 and 5,000, occlusion of 1,000.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _bench import publish, table

TEXT = """Every image of a data set explained, by `at_scale.explain_dataset` with chunks of 256: \
the tank detector, scenes of 64 × 64 pixels in a memory map. Each row is a process of its own, \
begun anew; its time is from the call to the finished store, the compiling included, and with \
workers their loading of TensorFlow and of the network as well. Peak memory is that of the process \
that was called, or of the larger of the two workers. One measurement each.

{rows}

On paper, a million images of 224 pixels by saliency, at {each:.3g} s for each on {cores} cores \
(EfficientNet-Lite0, measured on {photos} photos), and workers with as many: {alone:.3g} hours on \
one worker, {many:.3g} on 16, {most:.3g} on 256, if disk and network keep up.
"""
# Run by a process of its own, which prints the seconds and the megabytes.
MEASURE = """
import json, re, sys, time
import numpy as np
from course_utils import at_scale, gradients, occlusion
method = {"saliency": gradients.saliency_map, "occlusion": occlusion.occlusion_map}[sys.argv[2]]
options = {"saliency": {}, "occlusion": {"patch": 8, "stride": 8}}[sys.argv[2]]
def peak():
    return int(re.search("VmHWM:(.*) kB", open("/proc/self/status").read())[1]) / 1024
if __name__ == "__main__":
    images, client = np.load(sys.argv[1], mmap_mode="r")[:int(sys.argv[3])], None
    if sys.argv[4] == "workers":
        from distributed import Client, LocalCluster
        client = Client(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
    start = time.perf_counter()
    at_scale.explain_dataset(
        method, "scenes_fair", images, sys.argv[5], client=client, targets=1, **options)
    seconds = time.perf_counter() - start
    print(json.dumps([seconds, max(client.run(peak).values()) if client else peak()]))
"""


def draw(path, count):
    """Write scenes to a file, a thousand at a time."""
    from course_utils import datasets

    images = np.lib.format.open_memmap(path, "w+", np.float32, (count, 64, 64, 3))
    for start in range(0, count, 1000):
        part = images[start : start + 1000]
        part[:] = datasets.make_scenes(len(part), confounded=False, seed=start).images


def measure(folder, method, count, how):
    """Seconds and megabytes of one run."""
    script = folder / "measure.py"
    script.write_text(MEASURE)
    out = folder / f"{method}_{count}_{how}"
    arguments = [folder / "images.npy", method, count, how, out]
    command = [sys.executable, script, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(re.findall(r"^\[.+\]$", run.stdout, re.MULTILINE)[-1])


def photo_seconds():
    """What the saliency of a photo of 224 pixels takes, and of how many that is the mean."""
    import time

    from course_utils import datasets, gradients, models

    classifier = models.imagenet_classifier()
    photos = [datasets.load_photo(name) for name in datasets.photo_names()]
    images = classifier.preprocess(np.stack(photos))
    gradients.saliency_map(classifier.model, images, 0)
    start = time.perf_counter()
    gradients.saliency_map(classifier.model, images, 0)
    return (time.perf_counter() - start) / len(images), len(images)


def main(*counts):
    each_method = {"saliency": counts or (1000, 5000), "occlusion": counts or (1000,)}
    rows, numbers = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw(folder / "images.npy", max(map(max, each_method.values())))
        for method, sizes in each_method.items():
            for count in sorted(sizes):
                for how in ("alone", "workers"):
                    seconds, memory = measure(folder, method, count, how)
                    rate = count / seconds
                    numbers[f"{method} {count} {how}"] = {"seconds": seconds, "memory_mb": memory}
                    who = {"alone": "this process", "workers": "two workers"}[how]
                    row = (f"{count:,}", f"{seconds:.3g} s", f"{rate:.3g}", f"{memory:,.0f} MB")
                    rows.append((f"{method}, {who}", *row))
                    print(rows[-1], flush=True)
    each, photos = photo_seconds()
    hours = each * 1e6 / 3600
    header = ("", "images", "time", "images per second", "peak memory")
    text = TEXT.format(
        rows=table(header, rows),
        each=each,
        photos=photos,
        cores=os.cpu_count(),
        alone=hours,
        many=hours / 16,
        most=hours / 256,
    )
    publish("at_scale", "Whole data sets", text, numbers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
