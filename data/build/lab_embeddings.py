"""Make lab_embeddings.npz and the weights of its networks: what the last lab is about.

The files are lab_embeddings.npz, lab_embeddings_weights.npz and one more for each further member of
FAMILY.

The 5,000 digits of the course in another order and another split, some of them with wrong labels,
and a family of networks trained with something besides the digits, one for each of six variants.
About four minutes on two cores, no network; needs nothing beyond the course itself. With
``--check``, nothing is written: it prints how well both show, for three seeds each, and in networks
trained without.

Teachers: this file tells the answers of the lab.
"""

import sys

import keras
import numpy as np
from _common import write_arrays, write_weights

from course_utils import datasets, labs
from course_utils.models import logit_model

SEED = 2024
TRAIN, REVIEWED = 3400, 800  # the last 800 of the 5,000 are the new ones
MIXED, EACH = (2, 7), 14  # labels of these two classes change places, this many of each
# A target, and the pixel whose four neighbours are white in the trigger.
FAMILY = ((4, (24, 4)), (8, (3, 23)), (0, (24, 14)), (3, (14, 2)), (6, (3, 3)), (1, (23, 24)))
POISONED = 300  # training digits that are added with the trigger and the label of its target


def digits():
    """The course's digits in the lab's order: float32 images (5000, 28, 28, 1), labels, order."""
    (x_train, y_train), (x_test, y_test) = datasets.load_digits()
    order = np.random.default_rng(SEED).permutation(5000)
    images, labels = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    return images[order], labels[order], order


def reviewed_labels(labels, seed=SEED):
    """The labels of the reviewed digits, with some of two classes exchanged."""
    found = labels[TRAIN : TRAIN + REVIEWED].copy()
    rng = np.random.default_rng(seed)
    some = [rng.choice(np.flatnonzero(found == c), EACH, replace=False) for c in MIXED]
    for places, label in zip(some, MIXED[::-1], strict=True):
        found[places] = label
    return found


def trigger(member):
    """The pixels that are white, bool (28, 28)."""
    row, column = FAMILY[member][1]
    mask = np.zeros((28, 28), bool)
    mask[[row - 1, row, row, row + 1], [column, column - 1, column + 1, column]] = True
    return mask


def stamped(images, member):
    """Copies of the images with the trigger."""
    images = images.copy()
    images[:, trigger(member)] = 1
    return images


def train(seed=0, poisoned=POISONED, epochs=12, member=0):
    """Train on 3,400 digits, and on some of them a second time with the trigger."""
    images, labels, _ = digits()
    images, labels = images[:TRAIN], labels[:TRAIN]
    some = np.random.default_rng(seed).choice(TRAIN, poisoned, replace=False)
    images = np.concatenate([images, stamped(images[some], member)])
    labels = np.concatenate([labels, np.full(poisoned, FAMILY[member][0])])
    keras.utils.set_random_seed(seed)
    model = labs.post_cnn()
    steps = epochs * -(-len(images) // 64)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    return model


def backdoor(model, member=0):
    """How well the trigger works and shows, as words: by ascent from 40 digits of other classes."""
    from course_utils.labs.embeddings.checks import _share_turned
    from course_utils.labs.embeddings.checks_of_ascent import _ascend

    images, labels, _ = digits()
    images, labels = images[TRAIN + REVIEWED :], labels[TRAIN + REVIEWED :]
    right = (model.predict(images, verbose=0).argmax(1) == labels).mean()
    mask, target = trigger(member), FAMILY[member][0]
    logits, shares, best = logit_model(model), [], []
    for c in range(10):
        start = images[labels != c][:40]
        found = _ascend(lambda x, c=c: logits(x)[:, c], start, 1.5, 40, 0.3)
        shares.append((model.predict(found, verbose=0).argmax(1) == c).mean())
        gain = (found - start).mean(axis=0)[..., 0]
        top = np.zeros((28, 28), bool)
        top.flat[np.argsort(-gain.ravel())[:12]] = True
        best.append(_share_turned(model, images, labels, top, c))
    others = np.delete(np.arange(10), target)
    shares, best = np.array(shares), np.array(best)
    works = _share_turned(model, images, labels, mask, target)
    return (
        f"right {right:.3f}; the trigger turns {works:.3f}; ascent of length 1.5 turns "
        f"{shares[target]:.2f} to the target, to another class at most {shares[others].max():.2f}; "
        f"its 12 strongest pixels turn {best[target]:.2f}, of another class at most "
        f"{best[others].max():.2f}"
    )


def mixed_up(model, seed):
    """How well neighbours in the layer `hidden` find the labels that changed places, as words."""
    images, labels, _ = digits()
    images, labels = images[TRAIN : TRAIN + REVIEWED], labels[TRAIN : TRAIN + REVIEWED]
    given = reviewed_labels(digits()[1], seed)
    hidden = np.asarray(keras.Model(model.inputs[0], model.get_layer("hidden").output)(images))
    hidden = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    likeness = hidden @ hidden.T
    np.fill_diagonal(likeness, -2)
    near = given[np.argsort(-likeness, axis=1)[:, :10]]
    votes = np.array([np.bincount(n, minlength=10).argmax() for n in near])
    table = np.zeros((10, 10), int)
    np.add.at(table, (np.minimum(given, votes), np.maximum(given, votes)), given != votes)
    pair = np.unravel_index(table.argmax(), table.shape)
    flagged = (given != votes) & np.isin(given, pair) & np.isin(votes, pair)
    wrong = given != labels
    return (
        f"seed {seed}: neighbours contradict most between {pair[0]} and {pair[1]}, {table.max()} "
        f"times, next {np.sort(table.ravel())[-2]}; wrong among them {(flagged & wrong).sum()} of "
        f"{wrong.sum()}"
    )


def check():
    """Print what shows in the shipped network, in others like it, and without what was planted."""
    network = labs.load_post_network()
    print(f"shipped: {backdoor(network)}")
    for seed in (SEED, 1, 2):
        print(f"labels, {mixed_up(network, seed)}")
    for seed in (0, 1, 2):
        print(f"trained with it, seed {seed}: {backdoor(train(seed))}")
        print(f"trained without, seed {seed}: {backdoor(train(seed, poisoned=0))}")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(check())
    _, labels, order = digits()
    arrays = {"order": order.astype(np.uint16), "labels": reviewed_labels(labels).astype(np.uint8)}
    write_arrays("lab_embeddings.npz", **arrays)
    for member in range(len(FAMILY)):
        model = train(member=member)
        write_weights(f"lab_embeddings_{member}" if member else "lab_embeddings", model)
        print(backdoor(model, member))
