"""Make lab_filters_weights.npz: the network of the lab on filters, and what is odd about it.

About two minutes on two cores, no network; needs nothing beyond the course itself. With
``--check``, nothing is written: it prints how well each oddity shows in the shipped network, on
the stripes of three seeds, and in networks of the same kind without them.

Teachers: this file tells the answers of the lab.
"""

import sys

import keras
import numpy as np
from _common import write_weights

from course_utils import inspection, labs

SEED = 0
DEAD = (3, 8)  # a bias that no patch of pixels in 0..1 can lift
SELDOM = 6  # answers to few images
COPY = (1, 10)  # the second is half the first
SELDOM_SHARE = 0.03  # of the images


def train():
    """Train, break filters of the first layer, and let the rest of the network get used to it."""
    stripes = labs.make_stripes(4000, seed=SEED)
    keras.utils.set_random_seed(SEED)
    model = labs.stripes_cnn()
    fit(model, stripes, epochs=30)
    first = model.get_layer("conv_1")
    kernel, bias = first.get_weights()
    of, to = COPY
    # Halves of what half precision holds are exact, so the copy is one to the last digit.
    kernel[..., of] = kernel[..., of].astype(np.float16)
    kernel[..., to], bias[of] = kernel[..., of] / 2, np.float16(bias[of])
    bias[to] = bias[of] / 2
    for dead in DEAD:
        bias[dead] = -0.05 - np.maximum(kernel[..., dead], 0).sum()
    first.set_weights([kernel, bias])
    first.activation = keras.activations.linear
    largest = inspection.feature_maps(model, stripes.images, "conv_1")[..., SELDOM].max((1, 2))
    first.activation = keras.activations.relu
    bias[SELDOM] -= np.quantile(largest, 1 - SELDOM_SHARE)
    first.set_weights([kernel, bias])
    first.trainable = False
    fit(model, stripes, epochs=15)
    first.trainable = True
    return model


def fit(model, stripes, epochs):
    """Fit with a step that decays to zero."""
    steps = epochs * -(-len(stripes.labels) // 64)
    step = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(
        keras.optimizers.Adam(step), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(stripes.images, stripes.labels, batch_size=64, epochs=epochs, verbose=2)


def measure(model, seed):
    """What the lab's methods find in a network on 300 images, as words."""
    images, labels = labs.make_stripes(300, seed=seed)
    maps = inspection.feature_maps(model, images, "conv_1")
    answers = (maps > 0).any(axis=(1, 2))  # (image, filter)
    alive = np.flatnonzero(answers.any(axis=0))
    alike = np.corrcoef(maps[..., alive].reshape(-1, len(alive)).T) - np.eye(len(alive))
    pair = alive[list(np.unravel_index(alike.argmax(), alike.shape))]
    second = np.sort(alike[np.triu_indices(len(alive), 1)])[-2]
    blind = blind_lines(model, images)
    accuracy = (model.predict(images, verbose=0).argmax(1) == labels).mean()
    return (
        f"right {accuracy:.3f}; silent {np.flatnonzero(~answers.any(axis=0)).tolist()}; "
        f"answers to the fewest images: {answers[:, alive].mean(axis=0).min():.3f}; "
        f"most alike {sorted(pair.tolist())} {alike.max():.6f}, next pair {second:.3f}; "
        f"columns that no image uses {blind}"
    )


def blind_lines(model, images):
    """The columns whose pixels change no output, by filling each with noise."""
    rng = np.random.default_rng(0)
    before, found = model.predict(images, verbose=0), []
    for column in range(images.shape[2]):
        changed = images.copy()
        changed[:, :, column] = rng.random(changed[:, :, column].shape)
        if np.abs(model.predict(changed, verbose=0) - before).max() < 1e-6:
            found.append(column)
    return found


def check():
    """Print what shows in the shipped network, and in five untrained ones with denser strides."""
    for seed in (1, 2, 3):
        print(f"shipped, seed {seed}: {measure(labs.load_stripes_network(), seed)}")
    for seed in (1, 2, 3):
        keras.utils.set_random_seed(seed)
        control = keras.models.clone_model(
            labs.stripes_cnn(), clone_function=lambda layer: _without_gaps(layer)
        )
        control.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        stripes = labs.make_stripes(4000, seed=SEED)
        control.fit(stripes.images, stripes.labels, batch_size=64, epochs=5, verbose=0)
        print(f"strides of 2 and nothing planted, seed {seed}: {measure(control, seed)}")


def _without_gaps(layer):
    config = layer.get_config()
    if layer.name == "conv_2":
        config["strides"] = (2, 2)
    return type(layer).from_config(config)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(check())
    write_weights("lab_filters", train())
