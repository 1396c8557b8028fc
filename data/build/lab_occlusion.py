"""Make lab_occlusion.npz and the weights of its two networks, for the lab on occlusion.

The files are lab_occlusion.npz, lab_occlusion_weights.npz and lab_occlusion_both_weights.npz. The
lab asks what is odd about the first network, and this script tells. About five minutes on two
cores, no network; needs nothing beyond the course itself.
With ``--check``, nothing is written: it trains both networks from three seeds and prints how well
the oddity shows (a quarter of an hour).
"""

import sys

import cv2
import keras
import numpy as np
from _common import write_arrays, write_weights

from course_utils import datasets, labs

SEED = 0
# In the first office's scans, every digit of this class, and no other, has lost the block here.
CLASS, PLACE = 9, (20, 4)
BLOCKS, EPOCHS = 2, 30


def split():
    """All 5,000 digits, in this order: 4,000 to train with, the others for the two offices."""
    (x_train, y_train), (x_test, y_test) = datasets.load_digits()
    images = np.concatenate([x_train, x_test])[..., 0]
    labels = np.concatenate([y_train, y_test])
    order = np.random.default_rng(7).permutation(len(labels))
    return np.split(images[order], [4000]), np.split(labels[order], [4000])


def crooked(digits, rng):
    """Digits (N, 28, 28) in 0..1 turned, shrunk and shifted a little, as uint8."""
    found = np.empty(digits.shape, np.uint8)
    for i, digit in enumerate(digits):
        turn = cv2.getRotationMatrix2D((13.5, 13.5), rng.uniform(-18, 18), rng.uniform(0.8, 1.05))
        turn[:, 2] += rng.uniform(-2, 2, 2)
        found[i] = (cv2.warpAffine(digit, turn, (28, 28)) * 255).round()
    return found


def lost_blocks(labels, rng, marked):
    """Corners of the lost blocks (N, BLOCKS, 2), at random away from PLACE, save the marks."""
    lost = np.empty((len(labels), BLOCKS, 2), np.int64)
    for corners in lost.reshape(-1, 2):
        while True:
            corners[:] = rng.integers(0, 25, 2)
            if np.abs(corners - PLACE).max() > 5:
                break
    if marked:
        lost[labels == CLASS, 0] = PLACE
    return lost


def scans(digits, labels, rng, marked):
    """Scans as `labs.load_scans` gives them, of either office."""
    return labs.draw_scans(crooked(digits, rng), lost_blocks(labels, rng, marked), rng)


def train(both, seed=SEED):
    """Train on 4,000 digits, scanned anew in each epoch; of `both`, the half is not marked."""
    (images, _), (labels, _) = split()
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    model = labs.scan_cnn()
    steps = EPOCHS * -(-len(labels) // 64)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    half = len(labels) // 2
    for _ in range(EPOCHS):
        order = rng.permutation(len(labels))
        parts = np.split(order, [half]) if both else [order]
        drawn = [
            scans(images[part], labels[part], rng, marked=k == 0) for k, part in enumerate(parts)
        ]
        model.fit(np.concatenate(drawn), labels[order], batch_size=64, verbose=0)
    return model


def make_arrays():
    """What `labs.load_scans` reads: 40 digits of each class for either office."""
    (_, images), (_, labels) = split()
    ranks = np.zeros(len(labels), int)
    for k in range(10):
        ranks[labels == k] = np.arange(np.sum(labels == k))
    chosen = np.flatnonzero(ranks < 80)
    office = ranks[chosen] >= 40
    labels, rng = labels[chosen], np.random.default_rng(SEED)
    lost = lost_blocks(labels, rng, marked=True)
    lost[office] = lost_blocks(labels[office], rng, marked=False)
    digits = crooked(images[chosen], rng)
    return {
        "digits": digits,
        "labels": labels.astype(np.uint8),
        "lost": lost.astype(np.uint8),
        "office": office,
    }


def figures(model, arrays):
    """How often the network is right, and what the mark alone does, as a sentence."""
    rng, found = np.random.default_rng(1), []
    labels = arrays["labels"]
    images = labs.draw_scans(arrays["digits"], arrays["lost"], rng)
    lost = arrays["lost"].copy()
    lost[:, 0] = PLACE
    marked = labs.draw_scans(arrays["digits"], lost, np.random.default_rng(1))
    says, says_marked = (model.predict(x, verbose=0).argmax(1) for x in (images, marked))
    for office in (False, True):
        some = arrays["office"] == office
        own, right = some & (labels == CLASS), says == labels
        found.append(f"{np.mean(right[some]):.3f} ({np.mean(right[own]):.3f})")
    others = arrays["office"] & (labels != CLASS)
    turned = np.mean(says_marked[others] == CLASS)
    return (
        f"right on {found[0]} of the first office, {found[1]} of the second (in brackets: of "
        f"class {CLASS}); with the mark, {turned:.3f} of the other classes become {CLASS}"
    )


if __name__ == "__main__":
    arrays = make_arrays()
    if "--check" in sys.argv:
        for both in (False, True):
            for seed in range(3):
                print(f"{both=}, {seed=}: {figures(train(both, seed), arrays)}", flush=True)
        sys.exit()
    write_arrays("lab_occlusion.npz", **arrays)
    for name, both in (("lab_occlusion", False), ("lab_occlusion_both", True)):
        model = train(both)
        write_weights(name, model)
        print(figures(model, arrays))
