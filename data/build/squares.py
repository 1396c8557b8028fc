"""Make squares_backgrounds.npz and squares_weights.npz: document 000's toy, and a network for it.

Needs randimage 1.2 (PyPI), which draws the backgrounds; which ones come out also depends on
matplotlib's list of colour maps (3.11 made ours). About six minutes on two cores, no network.
With ``--check``, nothing is written: it trains the document's own network on the document's
rectangle of 100 and on a rectangle of 0.5, for five seeds each (a minute).
"""

import random
import sys

import keras
import matplotlib
import numpy as np
from _common import need, write_arrays, write_weights

from course_utils import datasets, models

SEED = 0


def backgrounds(n=200):
    """The first n backgrounds, uint8 (n, 64, 64, 3)."""
    import matplotlib.pyplot as plt

    # randimage 1.2 asks matplotlib.cm for get_cmap, which matplotlib 3.11 took away. Give it back
    # for this run (it is the same look-up) and leave randimage as its author published it.
    if not hasattr(plt.cm, "get_cmap"):
        plt.cm.get_cmap = matplotlib.colormaps.get_cmap
    from randimage import get_random_image

    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 (randimage draws from numpy's global generator)
    images = np.stack([get_random_image((64, 64)) for _ in range(n)])
    return np.round(images * 255).astype(np.uint8)


def train(seen, rounds=30):
    """Train the course's network on the backgrounds `seen`, 3,000 new squares a round."""
    rng = np.random.default_rng(SEED)
    keras.utils.set_random_seed(SEED)
    model = models.squares_cnn()
    steps = rounds * -(-3000 // 32)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    for _ in range(rounds):
        images, labels, _ = datasets._draw_squares(seen, 3000, rng, 0.5)
        model.fit(images, labels, batch_size=32, verbose=2)
    return model


def accuracy(model, squares):
    """Share of right answers."""
    return np.mean((model.predict(squares.images, verbose=0)[:, 0] > 0.5) == squares.labels)


def check():
    """Print how well the document's network learns rectangles of 100, and of a sane grey."""
    for grey in (100.0, 0.5):
        for seed in range(5):
            squares = datasets.make_squares(200, seed=seed, grey=grey)
            fresh = datasets.make_squares(1000, seed=1000 + seed, grey=grey)
            keras.utils.set_random_seed(seed)
            model = models.squares_document_cnn()
            history = model.fit(
                squares.images[:180], squares.labels[:180], batch_size=32, epochs=10, verbose=0
            )
            print(
                f"grey {grey}, seed {seed}: accuracy {history.history['accuracy'][-1]:.3f} on the "
                f"180 it trained on, {accuracy(model, fresh):.3f} on 1,000 fresh images"
            )


def report(images):
    """Print how often the shipped network is right, and what unseen backgrounds would cost."""
    for seed in (1, 2, 3):
        right = accuracy(models.load_trained("squares"), datasets.make_squares(1000, seed=seed))
        print(f"right on {right:.3f} of make_squares(1000, {seed=})")
    unseen = datasets._draw_squares(images[150:], 1000, np.random.default_rng(1), 0.5)
    right = accuracy(train(images[:150]), unseen)
    print(f"trained on 150 backgrounds, right on {right:.3f} of squares on the other 50")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(check())
    need(packages=["randimage"])
    images = backgrounds()
    write_arrays("squares_backgrounds.npz", images=images)
    write_weights("squares", train(images))
    report(images)
