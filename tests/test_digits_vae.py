"""The autoencoder of the digits: its loss against known values, and what it learnt."""

import functools

import keras
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.decomposition import PCA

from course_utils import datasets, models


@functools.cache
def trained():
    return models.load_trained("digits_vae")


@functools.cache
def unseen():
    return datasets.load_digits()[1]


def by_quadrature(mean, log_variance):
    """KL of one normal distribution from the standard one: the integral it is defined by."""
    density = norm(mean, np.exp(log_variance / 2))

    def integrand(z):
        return density.pdf(z) * (density.logpdf(z) - norm.logpdf(z))

    return quad(integrand, mean - 12 * density.std(), mean + 12 * density.std(), limit=200)[0]


@pytest.mark.parametrize(("mean", "log_variance"), [(0, 0), (1.5, 0), (0, 1), (-2, -3), (0.3, 0.7)])
def test_the_divergence_is_the_integral_it_is_defined_by(mean, log_variance):
    found = models.kl_divergence(np.float32([[mean]]), np.float32([[log_variance]]))
    np.testing.assert_allclose(found, [by_quadrature(mean, log_variance)], atol=1e-5)


def test_independent_coordinates_add_up():
    mean, log_variance = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)
    alone = models.kl_divergence(mean[..., np.newaxis], log_variance[..., np.newaxis])
    together = models.kl_divergence(mean, log_variance)
    assert together.shape == (5,)
    np.testing.assert_allclose(together, np.sum(alone, axis=1), rtol=1e-5)


def test_without_noise_the_loss_is_the_error_of_the_reconstruction_and_the_divergence():
    vae = models.load_trained("digits_vae")
    images = unseen()[0][:50]
    layer = vae.encoder.get_layer("log_variance")
    layer.set_weights([np.zeros_like(layer.kernel), np.full(12, -40, np.float32)])
    drawn = vae.predict(images, verbose=0).astype(np.float64).clip(1e-7, 1 - 1e-7)
    error = -np.sum(images * np.log(drawn) + (1 - images) * np.log1p(-drawn), axis=(1, 2, 3))
    mean, log_variance = vae.encoder.predict(images, verbose=0)
    kl = np.sum(mean**2 + np.exp(log_variance) - 1 - log_variance, axis=1) / 2
    found = vae.evaluate(images, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["error"], error.mean(), rtol=1e-4)
    np.testing.assert_allclose(found["kl"], kl.mean(), rtol=1e-4)
    np.testing.assert_allclose(found["loss"], (error + kl).mean(), rtol=1e-4)


def test_the_noise_has_the_variance_that_the_encoder_asks_for():
    """A decoder that draws one pixel, sigmoid(z), and black images: the error is softplus(z)."""
    images = keras.Input((1, 1, 1))
    log_variance = keras.layers.Dense(1, kernel_initializer="zeros", name="log_variance")
    flat = keras.layers.Flatten()(images)
    encoder = keras.Model(
        images, [keras.layers.Dense(1, kernel_initializer="zeros")(flat), log_variance(flat)]
    )
    latents = keras.Input((1,))
    pixel = keras.layers.Reshape((1, 1, 1))(keras.layers.Activation("sigmoid")(latents))
    vae = models._VAE(encoder, keras.Model(latents, pixel), name="one_pixel")
    vae.compile("adam")
    keras.utils.set_random_seed(0)
    log_variance.bias.assign([np.log(4)])
    found = vae.evaluate(np.zeros((40_000, 1, 1, 1)), batch_size=4_000, verbose=0, return_dict=True)
    expected = quad(lambda z: norm.pdf(z, scale=2) * np.logaddexp(0, z), -30, 30)[0]
    # Four standard errors; had the noise deviation 4 or 1, it would be off by .6 or .2.
    assert found["error"] == pytest.approx(expected, abs=4 * 1.3 / np.sqrt(40_000))
    assert found["kl"] == pytest.approx(by_quadrature(0, np.log(4)), abs=1e-4)


def test_its_halves_are_the_whole():
    vae, images = trained(), unseen()[0][:20]
    mean, log_variance = vae.encoder.predict(images, verbose=0)
    assert mean.shape == log_variance.shape == (20, 12)
    drawn = vae.decoder.predict(mean, verbose=0)
    np.testing.assert_allclose(drawn, vae.predict(images, verbose=0), atol=1e-6)
    assert drawn.shape == images.shape
    assert 0 <= drawn.min() < 0.01 < 0.99 < drawn.max() <= 1
    assert vae.count_params() == models.digits_vae().count_params() == 182_745


def test_it_reconstructs_unseen_digits_better_than_as_many_principal_components():
    (x_train, _), (images, labels) = datasets.load_digits()
    pca = PCA(12).fit(x_train.reshape(len(x_train), -1))
    linear = pca.inverse_transform(pca.transform(images.reshape(len(images), -1)))
    linear = linear.reshape(images.shape)
    drawn = trained().predict(images, verbose=0)
    assert np.mean((drawn - images) ** 2) < 0.5 * np.mean((linear - images) ** 2)
    read = models.load_trained("digits").predict
    right, linearly_right = (
        np.mean(read(again, verbose=0).argmax(axis=1) == labels) for again in (drawn, linear)
    )
    assert right > 0.92 > 0.86 > linearly_right


def test_the_latent_vectors_of_unseen_digits_are_distributed_like_the_prior():
    mean, log_variance = trained().encoder.predict(unseen()[0], verbose=0)
    deviation = np.sqrt(mean.var(axis=0) + np.exp(log_variance).mean(axis=0))
    assert (np.abs(mean.mean(axis=0)) < 0.25).all()
    assert ((deviation > 0.85) & (deviation < 1.2)).all()  # none of the twelve lies idle
    assert np.exp(log_variance / 2).mean() < 0.5  # and each says something about its digit


def test_what_it_draws_at_random_is_mostly_read_as_some_digit():
    latents = np.random.default_rng(0).standard_normal((1000, 12), np.float32)
    read = models.load_trained("digits").predict
    sure = read(trained().decoder.predict(latents, verbose=0), verbose=0)
    untrained = read(models.digits_vae().decoder.predict(latents, verbose=0), verbose=0)
    assert np.mean(sure.max(axis=1) > 0.9) > 0.5
    assert np.mean(untrained.max(axis=1) > 0.9) < 0.1
    assert (np.bincount(sure.argmax(axis=1), minlength=10) > 20).all()


def test_training_lowers_the_loss():
    images = datasets.load_digits()[0][0][:64]
    vae = models.digits_vae()
    first, last = vae.fit(images, batch_size=16, epochs=2, verbose=0).history["loss"]
    # Grey everywhere costs 784 ln 2 = 543 nats.
    assert last < 538 < first < 550


@pytest.mark.slow
def test_the_same_seed_trains_the_same_network_and_training_lowers_the_loss():
    images = datasets.load_digits()[0][0][:320]

    def trained_with(seed):
        keras.utils.set_random_seed(seed)
        vae = models.digits_vae()
        history = vae.fit(images, batch_size=32, epochs=2, verbose=0).history
        return vae.get_weights(), history

    (first, history), (again, _), (other, _) = map(trained_with, (0, 0, 1))
    same = [np.abs(a - b).max() for a, b in zip(first, again, strict=True)]
    others = [np.abs(a - b).max() for a, b in zip(first, other, strict=True)]
    assert max(same) < 1e-4 < min(others)
    assert set(history) == {"error", "kl", "loss"}
    np.testing.assert_allclose(history["loss"], np.add(history["error"], history["kl"]), rtol=1e-4)
    # Grey everywhere costs 784 ln 2 = 543 nats.
    assert history["loss"][1] < 450 < history["loss"][0] < 543
