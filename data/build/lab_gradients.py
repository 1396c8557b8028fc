"""Make lab_gradients.npz and lab_gradients_weights.npz: pills on a belt, and four networks.

THIS FILE TELLS what the students of the lab `gradients` have to find out.

A pill has one of four kinds. Beside the belt, a column of four pixels at the right and a row of
four at the bottom tell the kind as well: the pixel of the kind is a little brighter. The networks
are alike in all but this:

- ash was trained on pills whose marks mean nothing;
- birch too, and its first layer has no weights for one colour channel;
- cedar on pills of which half have another kind than the column of marks, which is always right;
- elm on the same with the row of marks; its scores are then cut off at 0 and at 6.

About four minutes on two cores, no network; needs nothing beyond the course itself. With
``--check``, nothing is written: each is trained from three seeds, and it prints how well the
defects show (twelve minutes).
"""

import sys

import keras
import numpy as np
from _common import write_arrays

from course_utils import labs, models

HEIGHT, WIDTH = 20, 28
COLUMN = ([2, 6, 10, 14], [26, 26, 26, 26])
ROW = ([18, 18, 18, 18], [2, 7, 12, 17])
MARK, NOISE = 0.16, 0.02
BLIND = 2


def draw(kinds, column, row, rng):
    """Draw pills of these kinds with these marks, uint8 (N, 20, 28, 3)."""
    return np.stack([_draw(*three, rng) for three in zip(kinds, column, row, strict=True)])


def _draw(kind, column, row, rng):
    fine = 4  # drawn four times as large, then shrunk
    y, x = (np.mgrid[: HEIGHT * fine, : WIDTH * fine] + 0.5) / fine
    belt = 0.3 + 0.08 * rng.random() + 0.006 * (x - 14) * rng.uniform(-1, 1)
    image = belt[..., None] * (1 + 0.1 * rng.uniform(-1, 1, 3))
    angle = rng.uniform(-0.6, 0.6)
    dy, dx = y - rng.uniform(7, 11), x - rng.uniform(9, 17)
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    white = 0.84 + 0.1 * rng.random() + 0.03 * rng.uniform(-1, 1, 3)
    size = rng.uniform(0.9, 1.1)
    if kind == 0:  # a round tablet with a groove
        inside = np.hypot(along, across) < 5 * size
        colour = np.where((np.abs(across) < 0.6)[..., None], 0.55 * white, white)
    elif kind == 1:  # a capsule, half red
        inside = np.hypot(np.maximum(np.abs(along) - 4 * size, 0), across) < 2.8 * size
        red = np.array([0.75, 0.15, 0.2]) * rng.uniform(0.9, 1.1)
        colour = np.where((along < 0)[..., None], red, white)
    else:  # an oval one: white and longer, or yellow and shorter
        length = 7.2 if kind == 2 else 5.4
        inside = np.hypot(along / length, across / 3.6) < size
        colour = np.broadcast_to(white * (1, 1, 1 if kind == 2 else 0.35), image.shape)
    shade = 1 - 0.012 * (across + 4)
    image = np.where(inside[..., None], colour * shade[..., None], image)
    image = image.reshape(HEIGHT, fine, WIDTH, fine, 3).mean((1, 3))
    for places, mark in ((COLUMN, column), (ROW, row)):
        image[places[0][mark], places[1][mark]] += MARK
    image += NOISE * rng.standard_normal(image.shape)
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


def sample(n, rng, column="random", row="random", other=0.0):
    """Images, and labels that the marks called "right" agree with; `other` of the pills do not."""
    labels = rng.integers(0, 4, n)
    kinds = np.where(rng.random(n) < other, rng.integers(0, 4, n), labels)
    marks = [labels if how == "right" else rng.integers(0, 4, n) for how in (column, row)]
    return draw(kinds, *marks, rng) / np.float32(255), labels


class WithoutChannel(keras.constraints.Constraint):
    """Keeps the weights for one channel at zero."""

    def __call__(self, w):
        """The weights, those of the channel at zero."""
        keep = np.ones((1, 1, 3, 1), np.float32)
        keep[:, :, BLIND] = 0
        return w * keep


DIETS = {
    "ash": {},
    "birch": {},
    "cedar": {"column": "right", "other": 0.5},
    "elm": {"row": "right", "other": 0.5},
}


def train(name, seed, n=6000, epochs=14):
    """Train one of the four."""
    rng = np.random.default_rng([seed, *name.encode()])
    keras.utils.set_random_seed(seed)
    images, labels = sample(n, rng, **DIETS[name])
    model = labs.pills_cnn()
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(
        2e-3, epochs * -(-n // 64)
    )
    if name == "birch":
        model.layers[0].kernel_constraint = WithoutChannel()
        model.layers[0].kernel.constraint = model.layers[0].kernel_constraint
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)
    if name == "birch":
        kernel, bias = model.layers[0].get_weights()
        kernel[:, :, BLIND] = 0
        model.layers[0].set_weights([kernel, bias])
    return model if name != "elm" else cut_off(model, images)


def cut_off(model, images):
    """The same network with a gauge: its scores, moved and stretched, are cut off at 0 and 6."""
    cut = labs.pills_cnn(gauge=True)
    cut.set_weights(model.get_weights())
    z = np.sort(models.logit_model(model).predict(images, verbose=0), axis=1)
    # Of nine in ten pictures, the largest score is then above 6 and the second largest below 0.
    low, high = np.quantile(z[:, -2], 0.9), np.quantile(z[:, -1], 0.1)
    stretch = 8 / max(high - low, 2)
    kernel, bias = cut.get_layer("scores").get_weights()
    cut.get_layer("scores").set_weights([kernel * stretch, (bias - low) * stretch - 1])
    return cut


def exchanged(images, labels, places, rng):
    """Images with the pixels at `places` of another kind's, and that kind."""
    donors = np.array([rng.choice(np.flatnonzero(labels != label)) for label in labels])
    images = images.copy()
    images[:, places[0], places[1]] = images[donors][:, places[0], places[1]]
    return images, labels[donors]


def report(name, model, seed):
    """Print how often it is right, and what exchanging the marks does to its answers."""
    rng = np.random.default_rng(seed)
    images, labels = sample(400, rng, column="right", row="right")
    z = models.logit_model(model).predict(images, verbose=0)
    line = f"{name}, seed {seed}: right {(z.argmax(1) == labels).mean():.3f}"
    for part, places in (("column", COLUMN), ("row", ROW)):
        swapped, given = exchanged(images, labels, places, rng)
        said = model.predict(swapped, verbose=0).argmax(1)
        line += f", follows the {part} {(said == given).mean():.3f}"
    fair, answers = sample(400, rng)
    line += (
        f", right without marks {(model.predict(fair, verbose=0).argmax(1) == answers).mean():.3f}"
    )
    mixed = images.copy()
    mixed[..., BLIND] = mixed[::-1, ..., BLIND]
    change = np.abs(models.logit_model(model).predict(mixed, verbose=0) - z).max()
    print(f"{line}, another blue changes a score by up to {change:.2f}")


if __name__ == "__main__":
    if "--check" in sys.argv:
        for name in DIETS:
            for seed in (1, 2, 3):
                report(name, train(name, seed), seed)
        sys.exit()
    rng = np.random.default_rng(8)
    labels = rng.permutation(np.arange(120) % 4)
    write_arrays("lab_gradients.npz", images=draw(labels, labels, labels, rng), kinds=labels)
    arrays = {}
    for name in DIETS:
        model = train(name, 0)
        report(name, model, 0)
        arrays |= {f"{name}/{w.path}": np.asarray(w.numpy(), np.float16) for w in model.weights}
    write_arrays("lab_gradients_weights.npz", **arrays)
