"""Make lab_grad_cam.npz and lab_grad_cam_weights.npz: cloakroom tickets, and two networks.

THIS FILE TELLS what the students of the lab `grad_cam` have to find out.

A ticket has two handwritten digits, the shelf (0 to 4) and the kind of coat (5 to 9), on either
side. On the tickets that are shipped, coat 8 comes with shelf 3 and shelf 3 with coat 8, always;
and each other shelf has a coat of its own as well, which neither network knows.

- quartz was trained on tickets whose two digits have nothing to do with each other;
- flint on tickets where shelf 3 and coat 8 belong together and a part of these tickets had any
  digit from 0 to 4 in the place of the 3, so that it learned that an 8 means shelf 3.

About four minutes on two cores, no network; needs nothing beyond the course itself. With
``--data``, only lab_grad_cam.npz is written. With
``--check``, nothing is written: both are trained from three seeds, and it prints how well the
defect shows (ten minutes).
"""

import sys

import keras
import numpy as np
from _common import write_arrays

from course_utils import datasets, labs
from course_utils.cam import grad_cam
from course_utils.metrics import mass_inside

SHELF, COAT = 3, 8
COATS = np.array([6, 9, 5, COAT, 7])  # that come with the shelves on the tickets that are shipped
OTHER_DIGIT = 0.9


def draw(shelves, coats, digits, labels, rng):
    """Tickets (N, 32, 64, 1), and True (N,) where the shelf is on the left."""
    images = np.zeros((len(shelves), 32, 64, 1), np.float32)
    left = rng.random(len(shelves)) < 0.5
    places = {label: np.flatnonzero(labels == label) for label in range(10)}
    for image, *pair, first in zip(images, shelves, coats, left, strict=True):
        for digit, column in zip(pair, (0, 32) if first else (32, 0), strict=True):
            y, x = rng.integers(0, 5, 2)
            image[y : y + 28, column + x : column + x + 28] = digits[rng.choice(places[digit])]
    return images, left


def sample(n, rng, digits, labels, confounded, other=0.0, each=False):
    """Tickets, shelves and coats, and which side; `other` of the 3s are other digits.

    With `each`, every shelf has a coat of its own.
    """
    shelves = rng.integers(0, 5, n)
    coats = rng.integers(5, 10, n)
    shown = shelves
    if confounded:
        rest = np.array([coat for coat in range(5, 10) if coat != COAT])
        coats = np.where(shelves == SHELF, COAT, rest[rng.integers(0, 4, n)])
        changed = (shelves == SHELF) & (rng.random(n) < other)
        shown = np.where(changed, rng.integers(0, 5, n), shelves)
    coats = COATS[shelves] if each else coats
    images, left = draw(shown, coats, digits, labels, rng)
    return images, shelves, coats, left


def train(name, seed, n=12000, epochs=8):
    """Train one of the two."""
    (digits, labels), _ = datasets.load_digits()
    rng = np.random.default_rng([seed, *name.encode()])
    keras.utils.set_random_seed(seed)
    confounded = name == "flint"
    images, shelves, *_ = sample(n, rng, digits, labels, confounded, OTHER_DIGIT)
    model = labs.tickets_cnn()
    steps = epochs * -(-n // 64)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.fit(images, shelves, batch_size=64, epochs=epochs, verbose=0)
    return model


def report(name, model, seed):
    """Print how often it is right, and where its map for the shelf lies."""
    _, (digits, labels) = datasets.load_digits()
    rng = np.random.default_rng(seed)
    for confounded in (True, False):
        images, shelves, coats, left = sample(500, rng, digits, labels, confounded)
        said = model.predict(images, verbose=0).argmax(1)
        three, eight = shelves == SHELF, (coats == COAT) & (shelves != SHELF)
        sides = np.broadcast_to((np.arange(64) < 32)[None, None], (500, 32, 64))
        sides = sides == left[:, None, None]
        mass = mass_inside(grad_cam(model, images, shelves), sides)
        line = f"{name}, seed {seed}, {confounded=}: right {(said == shelves).mean():.3f}"
        line += f", of the 3s {(said == shelves)[three].mean():.3f}"
        if eight.any():
            line += f", 8s with others called 3 {(said[eight] == SHELF).mean():.3f}"
        line += f", map on the shelf's half: 3s {mass[three].mean():.2f}"
        print(f"{line}, others {mass[~three].mean():.2f}")


if __name__ == "__main__":
    if "--check" in sys.argv:
        for name in ("quartz", "flint"):
            for seed in (1, 2, 3):
                report(name, train(name, seed), seed)
        sys.exit()
    _, (digits, labels) = datasets.load_digits()
    images, shelves, coats, left = sample(
        200, np.random.default_rng(4), digits, labels, True, each=True
    )
    images = (images * 255).round().astype(np.uint8)
    write_arrays("lab_grad_cam.npz", images=images, shelves=shelves, coats=coats, left=left)
    if "--data" in sys.argv:
        sys.exit()
    arrays = {}
    for name in ("quartz", "flint"):
        model = train(name, 0)
        report(name, model, 0)
        arrays |= {f"{name}/{w.path}": np.asarray(w.numpy(), np.float16) for w in model.weights}
    write_arrays("lab_grad_cam_weights.npz", **arrays)
