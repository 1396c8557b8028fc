"""The course's networks: how they are built, and their trained weights."""

import json
import socket
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

from course_utils._arrays import centre_square, check_photos
from course_utils._scores import logit_model as logit_model
from course_utils._shared import channels_last, check_images
from course_utils.datasets import data_file, load_arrays


@channels_last()
def digits_cnn():
    """Return the untrained digit network of document 003, compiled.

    Images (N, 28, 28, 1) in 0..1 to probabilities (N, 10); 1,199,882 parameters. The layers
    bear the names they have in the document's table.
    """
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu", name="conv2d_1"),
            layers.Conv2D(64, 3, activation="relu", name="conv2d_2"),
            layers.MaxPooling2D(2, name="max_pooling2d_1"),
            layers.Dropout(0.25, name="dropout_1"),
            layers.Flatten(name="flatten_1"),
            layers.Dense(128, activation="relu", name="dense_1"),
            layers.Dropout(0.5, name="dropout_2"),
            layers.Dense(10, activation="softmax", name="preds"),
        ],
        name="digits_cnn",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@channels_last()
def digits_small_cnn():
    """Return an untrained digit network of which twenty are shipped trained, compiled.

    Images (N, 28, 28, 1) in 0..1 to probabilities (N, 10); 28,938 parameters. `load_retrained`
    has it trained.
    """
    stack = [keras.Input((28, 28, 1))]
    for k, filters in enumerate((16, 32), start=1):
        options = {"padding": "same", "activation": "relu", "name": f"conv_{k}"}
        stack.append(layers.Conv2D(filters, 5, 2, **options))
    stack.append(layers.Flatten(name="flatten"))
    stack.append(layers.Dense(10, activation="softmax", name="preds"))
    model = keras.Sequential(stack, name="digits_small_cnn")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@channels_last()
def squares_cnn():
    """Return an untrained network that can learn the squares, compiled.

    Images (N, 64, 64, 3) in 0..1 to the probability of a rectangle (N, 1); 30,753 parameters.
    The maximum over all places lets it learn what a rectangle looks like wherever it lies.
    """
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_3"),
            layers.GlobalMaxPooling2D(name="max_over_places"),
            layers.Dense(32, activation="relu", name="dense"),
            layers.Dense(1, activation="sigmoid", name="rectangle"),
        ],
        name="squares_cnn",
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


@channels_last()
def squares_document_cnn():
    """Return document 000's own network for the squares, untrained and compiled.

    Images (N, 64, 64, 3) to the probability of a rectangle (N, 1); 1,049,537 parameters.
    """
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(32, activation="relu", name="dense"),
            layers.Dense(1, activation="sigmoid", name="rectangle"),
        ],
        name="squares_document_cnn",
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


@channels_last()
def scenes_cnn():
    """Return the untrained tank detector, compiled.

    Images (N, 64, 64, 3) in 0..1 to the probability of a tank (N, 1); 285,857 parameters.
    """
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(2, name="pool_1"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(2, name="pool_2"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_3"),
            layers.MaxPooling2D(2, name="pool_3"),
            layers.Flatten(name="flatten"),
            layers.Dense(64, activation="relu", name="dense"),
            layers.Dense(1, activation="sigmoid", name="tank"),
        ],
        name="scenes_cnn",
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


@channels_last()
def scenes_small_cnn():
    """Return an untrained tank detector of which 55 are shipped trained, compiled.

    Images (N, 64, 64, 3) in 0..1 to the probability of a tank (N, 1); 36,569 parameters.
    `load_retrained` has it trained.
    """
    stack = [keras.Input((64, 64, 3))]
    for k, filters in enumerate((16, 24, 32, 32), start=1):
        options = {"padding": "same", "activation": "relu", "name": f"conv_{k}"}
        stack.append(layers.Conv2D(filters, 3, 2, **options))
    stack.append(layers.Flatten(name="flatten"))
    stack.append(layers.Dense(32, activation="relu", name="dense"))
    stack.append(layers.Dense(1, activation="sigmoid", name="tank"))
    model = keras.Sequential(stack, name="scenes_small_cnn")
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


@channels_last()
def speech_cnn():
    """Return the untrained network that tells which of ten sentences is spoken, compiled.

    Log-mel spectrograms (N, 32, 96, 1) in 0..1 to probabilities (N, 10); 70,362 parameters.
    Layer k of the eight is conv_k, batch_norm_k, relu_k; relu_k is what it hands on.
    """
    filters, strides = (16, 16, 24, 24, 32, 32, 48, 64), (1, 2, 1, 2, 1, 2, 2, 1)
    stack = [keras.Input((32, 96, 1))]
    for k, (n, stride) in enumerate(zip(filters, strides, strict=True), start=1):
        # BatchNormalization has a shift of its own, so a bias would do nothing.
        conv = layers.Conv2D(n, 3, stride, padding="same", use_bias=False, name=f"conv_{k}")
        stack.append(conv)
        # With so few steps to an epoch, the default momentum of .99 lags far behind.
        stack.append(layers.BatchNormalization(momentum=0.9, name=f"batch_norm_{k}"))
        stack.append(layers.ReLU(name=f"relu_{k}"))
    stack.append(layers.GlobalAveragePooling2D(name="pool"))
    stack.append(layers.Dense(10, activation="softmax", name="preds"))
    model = keras.Sequential(stack, name="speech_cnn")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@channels_last()
def digits_vae():
    """Return an untrained variational autoencoder (VAE) of the digits, compiled.

    Images (N, 28, 28, 1) in 0..1 to their reconstructions; 182,745 parameters. Its two halves are
    networks of their own: ``encoder``, images to the mean and the logarithm of the variance of
    their latent vectors, (N, 12) each, and ``decoder``, the generator, latent vectors (N, 12) to
    images. ``fit(images)`` minimises, in nats per image, the sum of ``error``, the binary
    cross-entropy between an image and what is drawn for a random latent vector of it, and
    ``kl``, the `kl_divergence` of these vectors from the prior, a standard normal distribution.

    References
    ----------
    Kingma and Welling, Auto-Encoding Variational Bayes (ICLR 2014), arXiv:1312.6114; appendix B
    for the KL divergence.
    """
    images = keras.Input((28, 28, 1), name="images")
    x = layers.Conv2D(32, 4, 2, padding="same", activation="relu", name="encoder_conv_1")(images)
    x = layers.Conv2D(64, 4, 2, padding="same", activation="relu", name="encoder_conv_2")(x)
    x = layers.Flatten(name="encoder_flatten")(x)
    outputs = [layers.Dense(12, name=name)(x) for name in ("mean", "log_variance")]
    encoder = keras.Model(images, outputs, name="encoder")
    latents = keras.Input((12,), name="latents")
    x = layers.Dense(7 * 7 * 64, activation="relu", name="decoder_dense")(latents)
    x = layers.Reshape((7, 7, 64), name="decoder_reshape")(x)
    options = {"strides": 2, "padding": "same"}
    x = layers.Conv2DTranspose(32, 4, activation="relu", name="decoder_conv_1", **options)(x)
    x = layers.Conv2DTranspose(1, 4, activation="sigmoid", name="decoder_conv_2", **options)(x)
    decoder = keras.Model(latents, x, name="decoder")
    vae = _VAE(encoder, decoder, name="digits_vae")
    vae.compile("adam")
    return vae


def kl_divergence(mean, log_variance):
    """Return how far normal distributions are from the standard normal, in nats.

    Parameters
    ----------
    mean, log_variance : array or tensor (N, d)
        Of N distributions with independent coordinates.

    Returns
    -------
    tensor (N,)
        The Kullback-Leibler divergence of each from the standard normal of d dimensions.
    """
    return 0.5 * ops.sum(ops.exp(log_variance) + mean**2 - 1 - log_variance, axis=-1)


class _VAE(keras.Model):
    """A variational autoencoder; as a function, it reconstructs without noise."""

    def __init__(self, encoder, decoder, name):
        super().__init__(encoder.input, decoder(encoder(encoder.input)[0]), name=name)
        self.encoder, self.decoder = encoder, decoder
        self.noise = keras.random.SeedGenerator()
        self.error, self.kl = keras.metrics.Mean("error"), keras.metrics.Mean("kl")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        mean, log_variance = self.encoder(x, training=training)
        noise = keras.random.normal(ops.shape(mean), seed=self.noise)
        drawn = self.decoder(mean + ops.exp(log_variance / 2) * noise, training=training)
        error = ops.sum(keras.losses.binary_crossentropy(x, drawn), axis=(1, 2))
        kl = kl_divergence(mean, log_variance)
        self.error.update_state(error)
        self.kl.update_state(kl)
        return ops.mean(error + kl)


_TRAINED = {
    "digits": digits_cnn,
    "digits_vae": digits_vae,
    "squares": squares_cnn,
    "scenes_confounded": scenes_cnn,
    "scenes_fair": scenes_cnn,
    **{f"scenes_confounded_seed{seed}": scenes_cnn for seed in (1, 2, 3, 4)},
    **{f"scenes_fair_unpatched_seed{seed}": scenes_cnn for seed in (0, 1)},
    "speech": speech_cnn,
}
# A second name, for a reader who is still to find out what that network goes by.
_ALIASES = {"tank_detector": "scenes_confounded"}


def load_trained(name):
    """Return one of the course's networks with its trained weights, compiled.

    Parameters
    ----------
    name : str
        "digits", "digits_vae", "squares", "scenes_confounded", "scenes_fair" or "speech". Of the
        scenes there are more, to tell what a network learned from what its seed made of it:
        "scenes_confounded_seed1" to "..._seed4", the same recipe from other seeds; and
        "scenes_fair_unpatched_seed0" and "..._seed1", trained without random patches.
        "tank_detector" is "scenes_confounded" by a name that does not say what is wrong with it.

    Raises
    ------
    ValueError
        If there is no such network, or its file of weights is not intact.
    """
    name = _ALIASES.get(name, name)
    if name not in _TRAINED:
        known = ", ".join(repr(n) for n in _TRAINED)
        raise ValueError(f"the course has no trained network {name!r}. It has {known}.")
    model = _TRAINED[name]()
    set_weights(model, load_arrays(f"{name}_weights.npz"))
    return model


_RETRAINED = {
    "digits_plain": digits_small_cnn,
    "digits_marked": digits_small_cnn,
    "scenes_small_confounded": scenes_small_cnn,
    "scenes_small_fair": scenes_small_cnn,
    "scenes_dose": scenes_small_cnn,
}


def load_retrained(name):
    """Return small networks that one recipe trained from several seeds, compiled.

    What one network does, its seed may have made of it; what they all do, the recipe did.

    Parameters
    ----------
    name : str
        "digits_plain" or "digits_marked": what `digits_small_cnn` was trained on, the course's
        digits, or the same with a white square of 3 x 3 pixels in the upper left corner of every
        seven. "scenes_small_confounded" or "scenes_small_fair": scenes in which every tank stands
        under clouds and nothing else does, or in which the weather means nothing, for
        `scenes_small_cnn`. "scenes_dose": the same network five times for each of the doses 0, 50,
        60, 70, 80, 95 and 100 %, the share of its training scenes in which the sky told the answer.

    Returns
    -------
    list of keras.Model
        Ten, in the order of their seeds, 0 to 9; of "scenes_dose" 35, in the order of the doses
        and, for each, of the seeds 0 to 4.

    Raises
    ------
    ValueError
        If there are no such networks, or their file of weights is not intact.
    """
    if name not in _RETRAINED:
        known = ", ".join(repr(n) for n in _RETRAINED)
        raise ValueError(f"the course has no set of networks {name!r}. It has sets of {known}.")
    arrays = load_arrays(f"{name}_weights.npz")
    networks = [_RETRAINED[name]() for _ in next(iter(arrays.values()))]
    for seed, model in enumerate(networks):
        set_weights(model, {path: values[seed] for path, values in arrays.items()})
    return networks


def set_weights(model, arrays):
    """Give `model` the weights in `arrays`, a dict from each weight's path to its value.

    Raises ValueError, and changes nothing, if the names or shapes are not those of the model.
    """
    expected = {weight.path: tuple(weight.shape) for weight in model.weights}
    given = {path: value.shape for path, value in arrays.items()}
    if given != expected:
        differ = sorted(set(expected.items()) ^ set(given.items()))
        raise ValueError(
            f"these are not the weights of {model.name}: {len(differ)} names or shapes differ, "
            f"the first is {differ[0][0]} {differ[0][1]}."
        )
    model.set_weights([arrays[weight.path].astype(np.float32) for weight in model.weights])


class ImageClassifier(NamedTuple):
    """A network that knows ImageNet's 1,000 classes, and what it takes to show it a photo.

    A photo is uint8 or float (height, width, 3), red, green, blue in 0..255, of any size; photos
    are (N, height, width, 3). Floats that lie within 0..1 are refused, since they would be black.
    """

    model: keras.Model
    """Images as `preprocess` returns them -> probabilities (N, 1000)."""
    preprocess: Callable
    """preprocess(photos) -> float32 (N, size, size, 3): `crop`, then the network's own scaling."""
    decode: Callable
    """decode(probabilities, top=5) -> for each image the list of its likeliest classes, each an
    (index, name, probability)."""
    crop: Callable
    """crop(photos) -> the centre square at the network's size, in 0..255 (uint8, or float32 for
    floats): what the network sees, to be shown. One photo in, one photo out."""
    unprocess: Callable
    """unprocess(images) -> uint8 (N, size, size, 3): the photos that `preprocess` would turn into
    `images`; what no photo can be is clipped to 0..255."""
    size: int
    """The height and width of its images, in pixels."""
    class_names: list
    """The 1,000 names; a class's index is its place in the list. Two names stand twice."""
    name: str


# What each network was trained on: the mean and spread of red, green and blue that its scaling
# takes away and divides by, and whether it reads the channels in the order blue, green, red.
_IMAGENET = {
    "efficientnet_lite0": (127, 128, False),
    "vgg16": ((123.68, 116.779, 103.939), 1, True),
    "resnet50": ((123.68, 116.779, 103.939), 1, True),
    "mobilenet_v2": (127.5, 127.5, False),
}
_KERAS_APPLICATIONS = {"vgg16": "VGG16", "resnet50": "ResNet50", "mobilenet_v2": "MobileNetV2"}


def imagenet_classifier(name="efficientnet_lite0"):
    """Return a network trained on ImageNet, with what it takes to show it photos.

    Parameters
    ----------
    name : str
        "efficientnet_lite0", which the course ships; or "vgg16", "resnet50" or "mobilenet_v2",
        whose weights Keras downloads the first time (528, 98 and 14 MB).

    Returns
    -------
    ImageClassifier
        ``model``, ``preprocess``, ``decode``, ``crop``, ``unprocess``, ``size``,
        ``class_names`` and ``name``.

    Raises
    ------
    ValueError
        If there is no such network, or a shipped file is not intact.
    RuntimeError
        If the weights need a download and there is no network.

    References
    ----------
    EfficientNet-Lite0: `efficientnet_lite0`. VGG16: Simonyan and Zisserman, arXiv:1409.1556.
    ResNet50: He et al., arXiv:1512.03385. MobileNetV2: Sandler et al., arXiv:1801.04381.
    """
    if name not in _IMAGENET:
        known = ", ".join(repr(n) for n in _IMAGENET)
        raise ValueError(f"the course knows no ImageNet network {name!r}. It knows {known}.")
    model = _imagenet_model(name)
    size = model.input_shape[1]
    class_names = json.loads(data_file("imagenet_classes.json").read_text(encoding="utf-8"))
    mean, spread, blue_first = _IMAGENET[name]
    mean = np.float32(mean)
    order = slice(None, None, -1 if blue_first else 1)

    def crop(photos):
        """Return the centre squares at the network's size, in 0..255: what the network sees."""
        squares = np.stack([centre_square(photo, size) for photo in check_photos(photos)])
        return squares if np.ndim(photos) == 4 else squares[0]

    def preprocess(photos):
        """Return what the model takes, float32 (N, size, size, 3), for one photo or several."""
        squares = np.reshape(crop(photos), (-1, size, size, 3)).astype(np.float32)
        return ((squares - mean) / spread)[..., order]

    def unprocess(images):
        """Return the photos that `preprocess` would turn into `images`, uint8 and clipped."""
        photos = check_images(model, images)[..., order] * spread + mean
        return photos.round().clip(0, 255).astype(np.uint8)

    def decode(probabilities, top=5):
        """Return each image's `top` likeliest classes, as lists of (index, name, probability)."""
        return _likeliest(probabilities, class_names, top)

    return ImageClassifier(model, preprocess, decode, crop, unprocess, size, class_names, name)


@channels_last()
def _imagenet_model(name):
    """The network itself, from the course's own file or through Keras."""
    if name not in _KERAS_APPLICATIONS:
        model = efficientnet_lite0()
        set_weights(model, load_arrays(f"{name}_weights.npz"))
        return model
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # Keras sets none, and would wait for ever on a dead network
    try:
        return getattr(keras.applications, _KERAS_APPLICATIONS[name])(weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise RuntimeError(
            f"imagenet_classifier({name!r}) downloads its weights through Keras, and that failed: "
            f"{error} Connect to a network once (Keras then keeps a copy), or use "
            'imagenet_classifier("efficientnet_lite0"), which the course ships.'
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _likeliest(probabilities, class_names, top):
    """For each row of `probabilities`, its `top` (index, name, probability), likeliest first."""
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(class_names):
        raise ValueError(
            f"probabilities must have shape (N, {len(class_names)}), got {probabilities.shape}."
        )
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-3)).all():  # NaN fails as well
        raise ValueError(
            "probabilities must be in 0..1: these are not. Logits need a softmax first."
        )
    if not 1 <= top <= len(class_names):
        raise ValueError(f"top must be from 1 to {len(class_names)}, got {top}.")
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        [(int(i), class_names[i], float(row[i])) for i in indices]
        for row, indices in zip(probabilities, order, strict=True)
    ]


@channels_last()
def efficientnet_lite0():
    """Return the untrained EfficientNet-Lite0.

    Images (N, 224, 224, 3) to probabilities (N, 1000); 4,694,024 parameters. It is a stem, 16
    blocks ``block0`` to ``block15``, each of which widens its channels (``_expand``), looks at
    each channel by itself (``_depthwise``) and narrows them again (``_project``), and a head.
    The last feature maps, 7 × 7, are those of ``head_relu``.

    References
    ----------
    Tan and Le, EfficientNet (ICML 2019), arXiv:1905.11946; the "lite" variants, without
    squeeze-and-excitation and with ReLU6, were published by TensorFlow in 2020.
    """
    # Repeats, kernel, stride of the first repeat, widening, channels that come out.
    stages = [
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    ]
    images = keras.Input((224, 224, 3), name="images")
    x = _conv_norm(images, "stem", 32, kernel=3, strides=2)
    index = 0
    for repeats, kernel, strides, widening, channels in stages:
        for repeat in range(repeats):
            first = strides if repeat == 0 else 1
            x = _inverted_bottleneck(x, f"block{index}", kernel, first, widening, channels)
            index += 1
    x = _conv_norm(x, "head", 1280)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    probabilities = layers.Dense(1000, activation="softmax", name="predictions")(x)
    return keras.Model(images, probabilities, name="efficientnet_lite0")


def _inverted_bottleneck(x, name, kernel, strides, widening, channels):
    """Widen, filter each channel, narrow; add the input where the shapes allow it."""
    shortcut = x
    if widening > 1:
        x = _conv_norm(x, f"{name}_expand", widening * x.shape[-1])
    x = _conv_norm(x, f"{name}_depthwise", None, kernel, strides)
    x = _conv_norm(x, f"{name}_project", channels, relu=False)
    if strides == 1 and shortcut.shape[-1] == channels:
        x = layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _conv_norm(x, name, filters, kernel=1, strides=1, relu=True):
    """A convolution (depthwise if `filters` is None), batch normalisation and ReLU6."""
    options = {"strides": strides, "padding": "same", "use_bias": False, "name": name}
    if filters is None:
        x = layers.DepthwiseConv2D(kernel, **options)(x)
    else:
        x = layers.Conv2D(filters, kernel, **options)(x)
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_norm")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if relu else x
