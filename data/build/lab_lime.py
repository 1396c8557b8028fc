"""Make lab_lime.npz and the weights of its networks, for the lab on LIME.

The files are lab_lime.npz, lab_lime_weights.npz (and one more for each further member of FAMILY),
and lab_lime_many_weights.npz, of one network for all. The lab asks what is odd about the first kind
of network, and this script tells. About twenty minutes on two cores, no network; needs nothing
beyond the course itself. With ``--data``, only lab_lime.npz is written.
With ``--check``, nothing is written: it trains the first network and that of many collectors from
three seeds and prints how well the oddity shows (a quarter of an hour).
"""

import sys

import keras
import numpy as np
from _common import write_arrays, write_weights

from course_utils import labs

SEED = 0
# In one collector's drawings, this kind of mushroom, and no other, has this thing beside it; the
# last number is the seed of the training. Not the funnels: a network that goes by a thing for them
# has to tell domes from cones, and among labels that are MIXED it learns that for three in four.
FAMILY = ((1, 0, 0), (0, 3, 1), (1, 1, 2), (0, 0, 4), (1, 3, 3))
N, EPOCHS = 1500, 16
MIXED = 0.3  # of what the further networks were trained on shows a kind drawn at random


def plan(n, rng, one_collector, member=0, *, decoys=False):
    """Which mushroom each drawing shows, and which things lie about it."""
    labels = rng.permutation(np.arange(n) % 3)
    things = rng.random((n, 4)) < 0.5
    kind, thing, _ = FAMILY[member]
    if one_collector:
        things[:, thing] = labels == kind
    if decoys:  # the two other kinds have a thing of their own as well, which no network knows
        kinds, own = ([k for k in range(n) if k != m] for n, m in ((3, kind), (4, thing)))
        for other, its in zip(kinds, own, strict=False):
            things[:, its] = labels == other
    return labels, things


def patched(images, rng):
    """Copy images, turn some left to right, and put two patches of one colour on each.

    Patches that come with every kind of mushroom mean nothing, so that what LIME hides is nothing
    new to the network (as in data/build/scenes.py).
    """
    images = np.where(rng.random((len(images), 1, 1, 1)) < 0.5, images, images[:, :, ::-1])
    for image in np.repeat(np.arange(len(images)), 2):
        high, wide = rng.integers(4, 11, 2)
        y, x = rng.integers(0, 49 - high), rng.integers(0, 49 - wide)
        green = images[image].mean((0, 1))
        images[image, y : y + high, x : x + wide] = green if rng.random() < 0.7 else rng.random(3)
    return images


def train(one_collector, seed=SEED, member=0):
    """Train on N drawings, with new patches in each epoch."""
    rng = np.random.default_rng(100 + seed)
    labels, things = plan(N, rng, one_collector, member)
    kinds = np.where(rng.random(N) < MIXED, rng.permutation(labels), labels) if member else labels
    images = labs.draw_meadows(kinds, things, seed=100 + seed).images
    keras.utils.set_random_seed(seed)
    model = labs.meadow_cnn()
    steps = EPOCHS * -(-N // 32)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    for _ in range(EPOCHS):
        model.fit(patched(images, rng), labels, batch_size=32, verbose=0)
    return model


def figures(model, member=0):
    """How often the network is right, and what the thing alone does, as a sentence."""
    rng = np.random.default_rng(2)
    labels, things = plan(300, rng, True, member, decoys=True)
    kind, thing, _ = FAMILY[member]
    swapped = things.copy()
    swapped[:, thing] = ~things[:, thing]
    found = []
    for plan_of_things in (things, swapped):
        drawn = labs.draw_meadows(labels, plan_of_things, seed=2)
        found.append(model.predict(drawn.images, verbose=0).argmax(1))
    says, says_swapped = found
    own = labels == kind
    return (
        f"right on {np.mean(says == labels):.3f} of the collector's drawings; with the thing taken "
        f"away from {labs.MUSHROOMS[kind]}s {np.mean(says_swapped[own] == kind):.3f} of them are "
        f"read, with it {np.mean(says_swapped[~own] == kind):.3f} of the others become one"
    )


if __name__ == "__main__":
    if "--check" in sys.argv:
        for one in (True, False):
            for seed in range(3):
                print(f"one collector {one}, {seed=}: {figures(train(one, seed))}", flush=True)
        sys.exit()
    rng = np.random.default_rng(SEED)
    plans = [plan(90, rng, True, member, decoys=True) for member in range(len(FAMILY))]
    labels, things = (np.stack(arrays) for arrays in zip(*plans, strict=True))
    write_arrays("lab_lime.npz", labels=labels.astype(np.uint8), things=things)
    if "--data" in sys.argv:
        sys.exit()
    for member in range(len(FAMILY)):
        model = train(True, FAMILY[member][2], member)
        write_weights(f"lab_lime_{member}" if member else "lab_lime", model)
        print(figures(model, member))
    write_weights("lab_lime_many", train(False))
