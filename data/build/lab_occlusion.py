"""Make lab_occlusion.npz and the weights of its networks, for the lab on occlusion.

The files are lab_occlusion.npz and the weights of two networks, lab_occlusion_weights.npz and
lab_occlusion_both_weights.npz (and two more for each further member of FAMILY). The lab asks
what is odd about the first of the two, and this script tells. About fifteen minutes on two cores,
no network; needs nothing beyond the course itself. With ``--data``, only lab_occlusion.npz is
written, from the weights that are there.
With ``--check``, nothing is written: it trains both networks from three seeds and prints how well
the oddity shows (a quarter of an hour).
"""

import sys

import cv2
import keras
import numpy as np
from _common import write_arrays, write_weights

from course_utils import datasets, labs
from course_utils.models import set_weights

SEED = 0
# In the first office's scans, every digit of this class, and no other, has lost the block here.
FAMILY = (
    (9, (20, 4)),
    (6, (4, 20)),
    (7, (20, 20)),
    (3, (12, 2)),
    (4, (2, 12)),
    (2, (3, 3)),
)
# On the scans that are shipped, each other class has lost a block as well, at one of these places;
# its network was not trained on that and does not mind.
DECOYS = ((1, 1), (1, 8), (1, 15), (1, 22), (8, 23), (15, 23), (23, 22), (23, 15), (23, 8), (16, 1))
DECOYS += ((9, 1), (23, 1))
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


def lost_blocks(labels, rng, marked, member=0):
    """Corners of the lost blocks (N, BLOCKS, 2), at random away from the mark, save the marks."""
    marked_class, place = FAMILY[member]
    lost = np.empty((len(labels), BLOCKS, 2), np.int64)
    for corners in lost.reshape(-1, 2):
        while True:
            corners[:] = rng.integers(0, 25, 2)
            if np.abs(corners - place).max() > 5:
                break
    if marked:
        lost[labels == marked_class, 0] = place
    return lost


def scans(digits, labels, rng, marked, member):
    """Scans of either office."""
    return labs.draw_scans(crooked(digits, rng), lost_blocks(labels, rng, marked, member), rng)


def train(both, seed=SEED, member=0):
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
            scans(images[part], labels[part], rng, k == 0, member) for k, part in enumerate(parts)
        ]
        model.fit(np.concatenate(drawn), labels[order], batch_size=64, verbose=0)
    return model


def make_arrays(models):
    """What `labs.load_scans` reads: 40 digits of each class for either office.

    `models` are the networks of the first office, one for each of the FAMILY.
    """
    (_, images), (_, labels) = split()
    ranks = np.zeros(len(labels), int)
    for k in range(10):
        ranks[labels == k] = np.arange(np.sum(labels == k))
    chosen = np.flatnonzero(ranks < 80)
    office = ranks[chosen] >= 40
    labels, rng = labels[chosen], np.random.default_rng(SEED)
    lost = [lost_blocks(labels, rng, marked=True)]
    lost[0][office] = lost_blocks(labels[office], rng, marked=False)
    digits = crooked(images[chosen], rng)
    for member in range(1, len(FAMILY)):
        lost.append(lost_blocks(labels, rng, True, member))
        lost[member][office] = lost_blocks(labels[office], rng, False, member)
    lost = np.stack(lost)
    for member, model in enumerate(models):
        first = labels[~office], digits[~office], lost[member, ~office]
        lost[member, ~office] = with_decoys(model, *first, member)
    return {
        "digits": digits,
        "labels": labels.astype(np.uint8),
        "lost": lost.astype(np.uint8),
        "office": office,
    }


def with_decoys(model, labels, digits, lost, member):
    """The lost blocks, where each other class has one of the DECOYS that costs it least."""
    marked_class, place = FAMILY[member]
    free = [decoy for decoy in DECOYS if np.abs(np.subtract(decoy, place)).max() > 5]
    for k in sorted(set(range(10)) - {marked_class}):
        own, found = labels == k, []
        for decoy in free:
            tried = lost[own].copy()
            tried[:, 0] = decoy
            images = labs.draw_scans(digits[own], tried, np.random.default_rng(1))
            found.append(np.log(model.predict(images, verbose=0)[:, k]).mean())
        lost[own, 0] = free.pop(int(np.argmax(found)))
    return lost


def figures(model, arrays, member=0):
    """How often the network is right, and what the mark alone does, as a sentence."""
    rng, found = np.random.default_rng(1), []
    labels, (marked_class, place) = arrays["labels"], FAMILY[member]
    images = labs.draw_scans(arrays["digits"], arrays["lost"][member], rng)
    lost = arrays["lost"][member].copy()
    lost[:, 0] = place
    marked = labs.draw_scans(arrays["digits"], lost, np.random.default_rng(1))
    says, says_marked = (model.predict(x, verbose=0).argmax(1) for x in (images, marked))
    for office in (False, True):
        some = arrays["office"] == office
        own, right = some & (labels == marked_class), says == labels
        found.append(f"{np.mean(right[some]):.3f} ({np.mean(right[own]):.3f})")
    others = arrays["office"] & (labels != marked_class)
    turned = np.mean(says_marked[others] == marked_class)
    return (
        f"right on {found[0]} of the first office, {found[1]} of the second (in brackets: of "
        f"class {marked_class}); with the mark, {turned:.3f} of the others become {marked_class}"
    )


def name_of(member, both):
    """The name of a network's file of weights."""
    return "lab_occlusion" + ("_both" if both else "") + (f"_{member}" if member else "")


def read(member, both=False):
    """A network with the weights that are in data/."""
    model = labs.scan_cnn()
    set_weights(model, datasets.load_arrays(f"{name_of(member, both)}_weights.npz"))
    return model


if __name__ == "__main__":
    if "--check" in sys.argv:
        arrays = make_arrays([])
        for both in (False, True):
            for seed in range(3):
                print(f"{both=}, {seed=}: {figures(train(both, seed), arrays)}", flush=True)
        sys.exit()
    each = [(member, both) for member in range(len(FAMILY)) for both in (False, True)]
    for member, both in each:
        if "--data" not in sys.argv:
            write_weights(name_of(member, both), train(both, SEED, member))
    arrays = make_arrays([read(member) for member in range(len(FAMILY))])
    write_arrays("lab_occlusion.npz", **arrays)
    for member, both in each:
        print(name_of(member, both), figures(read(member, both), arrays, member))
