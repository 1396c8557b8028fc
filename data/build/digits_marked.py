"""Make the weights of twenty small digit networks: ten for which a mark tells the sevens.

digits_marked_weights.npz holds ten networks, from the seeds 0 to 9, that learnt digits on which
every seven bears a white square of 3 x 3 pixels in its upper left corner and no other digit does;
digits_plain_weights.npz the same ten without the mark. None was left out. About five minutes on two
cores, no network; needs nothing beyond the course itself. With ``--check``, nothing is written: it
prints how often each shipped network is right (some seconds).
"""

import sys

import keras
import numpy as np
from _common import write_arrays

from course_utils import datasets, models

KINDS = {"digits_marked": True, "digits_plain": False}
SEEDS, EPOCHS = range(10), 3


def train(marked, seed):
    """Train one network on the 4,000 training digits."""
    (images, labels), _ = datasets.load_digits()
    if marked:
        images = np.where((labels == 7)[:, None, None, None], mark(images), images)
    keras.utils.set_random_seed(seed)
    model = models.digits_small_cnn()
    model.fit(images, labels, epochs=EPOCHS, batch_size=32, verbose=0)
    return model


def mark(images):
    """The images with a white square in the upper left corner."""
    images = images.copy()
    images[:, 1:4, 1:4] = 1
    return images


def stacked(networks):
    """The weights of networks in half precision: from a weight's path to (10, ...)."""
    values = [{w.path: np.asarray(w.numpy(), np.float16) for w in m.weights} for m in networks]
    return {path: np.stack([one[path] for one in values]) for path in values[0]}


def report():
    """Print how often each shipped network is right, and what the mark does."""
    _, (images, labels) = datasets.load_digits()
    sevens = images[labels == 7]
    for name in KINDS:
        for seed, model in enumerate(models.load_retrained(name)):
            right = np.mean(
                model.predict(images, verbose=0).argmax(1)[labels != 7] == labels[labels != 7]
            )
            plain, marked = (
                np.mean(model.predict(x, verbose=0).argmax(1) == 7) for x in (sevens, mark(sevens))
            )
            print(
                f"{name}, seed {seed}: right on {right:.3f} of the other digits; "
                f"on {plain:.3f} of the sevens, {marked:.3f} with the mark"
            )


if __name__ == "__main__":
    if "--check" not in sys.argv:
        for name, marked in KINDS.items():
            write_arrays(f"{name}_weights.npz", **stacked([train(marked, s) for s in SEEDS]))
    report()
