"""Make the weights of eight detectors for one tank.

All are the same network. The one of scenes_confounded_weights.npz is trained on 800 scenes where
every tank stands under clouds and nothing else does, that of scenes_fair_weights.npz on 2,000 where
the weather has nothing to do with it. Four more are the confounded one from other seeds (of the
first weights, of the order and of the patches, on the same scenes):
scenes_confounded_seed1_weights.npz, scenes_confounded_seed2_weights.npz,
scenes_confounded_seed3_weights.npz and scenes_confounded_seed4_weights.npz. Two more are the fair
one without patches, scenes_fair_unpatched_seed0_weights.npz and
scenes_fair_unpatched_seed1_weights.npz. The seeds are the first that there are; none was left out.

About 15 minutes on two cores, no network; needs nothing beyond the course itself. With ``--check``,
nothing is written: it prints how long 1,000 scenes take, and where the shipped networks look, by
occlusion (some minutes). With names, it makes these networks only.
"""

import sys
import time
from itertools import product

import keras
import numpy as np
from _common import write_weights

from course_utils import datasets, models

SCENES_SEED = 0
FILLS = (0.0, 0.5, 1.0)


def patched(images, rng):
    """Copy images with two patches of one colour on each, of 4 to 12 pixels, wherever."""
    images = images.copy()
    for image in np.repeat(np.arange(len(images)), 2):
        high, wide = rng.integers(4, 13, 2)
        y, x = rng.integers(0, 65 - high), rng.integers(0, 65 - wide)
        images[image, y : y + high, x : x + wide] = rng.random(3 if rng.integers(2) else 1)
    return images


def train(n, epochs, confounded, seed=0, patches=True):
    """Train the tank detector on n scenes, with new patches in each epoch, or with none.

    A network that has never seen a patch takes a black one for a piece of a tank, and its
    occlusion maps show that more than they show what it looks at in a scene. Patches that come
    with and without tanks mean nothing (Zhong et al., Random Erasing Data Augmentation, 2017).
    """
    scenes = datasets.make_scenes(n, confounded=confounded, seed=SCENES_SEED)
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    model = models.scenes_cnn()
    steps = epochs * -(-n // 32)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    for _ in range(epochs):
        images = patched(scenes.images, rng) if patches else scenes.images
        model.fit(images, scenes.labels, batch_size=32, verbose=2)
    return model


CONFOUNDED = {"n": 800, "epochs": 8, "confounded": True}
FAIR = {"n": 2000, "epochs": 25, "confounded": False}
NETWORKS = {
    "scenes_confounded": CONFOUNDED,
    "scenes_fair": FAIR,
    **{f"scenes_confounded_seed{k}": CONFOUNDED | {"seed": k} for k in (1, 2, 3, 4)},
    **{f"scenes_fair_unpatched_seed{k}": FAIR | {"seed": k, "patches": False} for k in (0, 1)},
}


def accuracy(model, scenes):
    """Share of right answers."""
    return np.mean((model.predict(scenes.images, verbose=0)[:, 0] > 0.5) == scenes.labels)


def logits(model, images):
    """The scores before the final sigmoid."""
    kernel, bias = model.layers[-1].get_weights()
    features = keras.Model(model.inputs[0], model.layers[-2].output)(images)
    return (np.asarray(features) @ kernel + bias)[:, 0]


def occlusion(model, image, fill, patch=8, stride=4):
    """Mean drop of the logit over the patches that cover a pixel; (64, 64)."""
    corners = [*product(range(0, 64 - patch + 1, stride), repeat=2)]
    covered = np.repeat(image[None], len(corners), axis=0)
    for one, (y, x) in zip(covered, corners, strict=True):
        one[y : y + patch, x : x + patch] = fill
    drops = logits(model, image[None]) - logits(model, covered)
    total, count = np.zeros((2, 64, 64))
    for drop, (y, x) in zip(drops, corners, strict=True):
        total[y : y + patch, x : x + patch] += drop
        count[y : y + patch, x : x + patch] += 1
    return total / count


def shares(model, seed, fill=0.0, n=40):
    """Mean share of the positive drop that lies on the sky and on the tank, of n // 2 tanks."""
    scenes = datasets.make_scenes(n, confounded=True, seed=seed)
    found = []
    for i in np.flatnonzero(scenes.labels):
        drop = occlusion(model, scenes.images[i], fill).clip(0)
        found.append([drop[m[i]].sum() / drop.sum() for m in (scenes.sky_masks, scenes.tank_masks)])
    return np.mean(found, axis=0)


def check():
    """Print where the shipped networks look, and what a scene costs."""
    start = time.perf_counter()
    datasets.make_scenes(1000, confounded=False, seed=1)
    print(f"1,000 scenes in {time.perf_counter() - start:.1f} s")
    for name, fill, seed in product(NETWORKS, FILLS, (11, 12, 13)):
        sky, tank = shares(models.load_trained(name), seed, fill)
        print(f"{name}, patches of {fill}, seed {seed}: sky {sky:.3f}, tank {tank:.3f}")


def report():
    """Print how often the shipped networks are right."""
    for name, confounded in product(NETWORKS, (True, False)):
        for seed in (1, 2, 3):
            scenes = datasets.make_scenes(1000, confounded=confounded, seed=seed)
            right = accuracy(models.load_trained(name), scenes)
            print(f"{name}: {right:.3f} of make_scenes(1000, {confounded=}, {seed=})")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(check())
    for name in [given for given in sys.argv[1:] if given != "--compare"] or NETWORKS:
        write_weights(name, train(**NETWORKS[name]))
    report()
