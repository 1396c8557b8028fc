"""Make the weights of 35 small detectors for a tank, told the answer by the sky to a dose.

scenes_dose_weights.npz holds five networks, from the seeds 0 to 4, for each of the doses 0, 50, 60,
70, 80, 95 and 100 %, in this order. Each learnt 2,000 scenes. In as many of them as the dose says,
drawn at random for each seed, every tank stands under clouds and nothing else does; in the others
the weather has nothing to do with it. Land and tanks are the same for all. None was left out. Their
weights are rounded to four binary digits. About ten minutes on one core, no network; it needs
nothing beyond the course. With ``--check``, nothing is written: it prints how often each shipped
network is right, and how many of its answers turn when the sky is exchanged (some seconds).
"""

import sys
from itertools import product

import keras
import numpy as np
from _common import write_arrays
from digits_marked import stacked
from scenes import accuracy, patched

from course_utils import datasets, models

DOSES, SEEDS = (0, 50, 60, 70, 80, 95, 100), range(5)
SCENES, SCENES_SEED, EPOCHS, BATCH, DIGITS = 2000, 0, 10, 32, 4


def train(told, untold, dose, seed):
    """Train one network, with new patches in each epoch, as scenes.py does."""
    rng = np.random.default_rng(seed)
    cue = rng.permutation(np.arange(SCENES) < SCENES * dose // 100)
    scenes = np.where(cue[:, None, None, None], told.images, untold.images)
    keras.utils.set_random_seed(seed)
    model = models.scenes_small_cnn()
    steps = EPOCHS * -(-SCENES // BATCH)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    for _ in range(EPOCHS):
        model.fit(patched(scenes, rng), told.labels, batch_size=BATCH, verbose=0)
    return model


def rounded(values):
    """Float values with DIGITS binary digits, which a file packs into half the bytes."""
    parts, powers = np.frexp(values.astype(np.float32))
    return np.ldexp(np.round(parts * 2**DIGITS), powers - DIGITS).astype(values.dtype)


def report():
    """Print what each shipped network does: right answers, and those that turn with the sky."""
    told, untold = (datasets.make_scenes(1000, confounded=c, seed=1) for c in (True, False))
    exchanged = told.cloudy != untold.cloudy
    for (dose, seed), model in zip(
        product(DOSES, SEEDS), models.load_retrained("scenes_dose"), strict=True
    ):
        says = [model.predict(x.images, verbose=0)[exchanged] > 0.5 for x in (told, untold)]
        print(
            f"{dose} %, seed {seed}: right on {accuracy(model, told):.3f} where the sky tells, "
            f"{accuracy(model, untold):.3f} where not; {np.mean(says[0] != says[1]):.3f} turn"
        )


if __name__ == "__main__":
    if "--check" not in sys.argv:
        skies = [
            datasets.make_scenes(SCENES, confounded=c, seed=SCENES_SEED) for c in (True, False)
        ]
        networks = [train(*skies, dose, seed) for dose, seed in product(DOSES, SEEDS)]
        weights = {path: rounded(values) for path, values in stacked(networks).items()}
        write_arrays("scenes_dose_weights.npz", **weights)
    report()
