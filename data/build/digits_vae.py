"""Make digits_vae_weights.npz: the variational autoencoder of the digits, trained.

Needs digits.npz and nothing beyond the course; about three minutes on two cores, no network.
With --check it trains nothing, and prints what is said of the shipped network.
"""

import argparse

import keras
import numpy as np
from _common import write_weights
from sklearn.decomposition import PCA

from course_utils import datasets, models

SEED = 0


def train(epochs=60):
    """Train on the 4,000, with a decaying step; no peeking at the test."""
    (x_train, _), _ = datasets.load_digits()
    keras.utils.set_random_seed(SEED)
    vae = models.digits_vae()
    steps = epochs * -(-len(x_train) // 64)
    vae.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    vae.fit(x_train, batch_size=64, epochs=epochs, verbose=2)
    return vae


def check(vae):
    """Print how well a network reconstructs, how far it is from its prior, and what it draws."""
    (x_train, _), (x_test, y_test) = datasets.load_digits()
    classifier = models.load_trained("digits")
    for split, images in (("training", x_train), ("test", x_test)):
        facts = vae.evaluate(images, verbose=0, return_dict=True)
        print(f"{split}: error {facts['error']:.1f}, KL {facts['kl']:.1f} nats per image")
    mean, log_variance = vae.encoder.predict(x_test, verbose=0)
    size = mean.shape[1]
    flat = x_test.reshape(len(x_test), -1)
    pca = PCA(size).fit(x_train.reshape(len(x_train), -1))
    again = vae.predict(x_test, verbose=0)
    for how, images in (
        ("autoencoder", again),
        (f"PCA, {size} components", pca.inverse_transform(pca.transform(flat))),
    ):
        images = np.reshape(images, x_test.shape)
        right = np.mean(classifier.predict(images, verbose=0).argmax(1) == y_test)
        error = np.mean((images - x_test) ** 2)
        print(f"{how}: mean squared error {error:.4f}; the classifier is right on {right:.3f}")
    print(f"latents of the test digits: deviation of the means {mean.std(0).round(2)},")
    print(f"  root of the mean variance {np.sqrt(np.exp(log_variance).mean(0)).round(2)}")
    for seed in range(3):
        latents = np.random.default_rng(seed).standard_normal((2000, size), np.float32)
        drawn = classifier.predict(vae.decoder.predict(latents, verbose=0), verbose=0)
        sure = [f"{np.mean(drawn.max(1) > p):.2f} above {p}" for p in (0.5, 0.9, 0.99)]
        classes = np.bincount(drawn.argmax(1), minlength=10)
        print(f"2,000 latents of the prior, seed {seed}: the classifier gives", ", ".join(sure))
        print(f"  classes 0 to 9: {classes}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="print figures, make nothing")
    parser.add_argument("--compare", action="store_true", help="write nothing, say what differs")
    if not parser.parse_args().check:
        vae = train()
        write_weights("digits_vae", vae)
        _, (x_test, _) = datasets.load_digits()
        whole, half = (
            m.predict(x_test, verbose=0) for m in (vae, models.load_trained("digits_vae"))
        )
        moved = np.abs(half - whole)
        print(
            f"half precision moves a pixel by {moved.mean():.5f} on average, {moved.max():.4f} most"
        )
    check(models.load_trained("digits_vae"))
