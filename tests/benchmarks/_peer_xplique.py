"""Xplique, for peers.py: python _peer_xplique.py given.npz, in its own environment.

Its options are its own, but where the course's function has to be met: the same number of samples,
nothing (0) where something is hidden, the same superpixels.
"""

import keras
import numpy as np
import tensorflow as tf
from _peer import given, in_batches, serve, weights
from xplique import attributions as xa

asked = given()
model = keras.models.model_from_json(str(asked["keras"]))
model.set_weights(weights(asked))
model.layers[-1].activation = keras.activations.linear  # the logits
images, one, segments = asked["images"], asked["images"][:1], asked["segments"]
batch, patch, noise = int(asked["batch"]), int(asked["patch"]), float(asked["noise"])
targets = np.eye(model.output_shape[-1], dtype=np.float32)[np.zeros(len(images), int)]
parts = {
    "batch_size": batch,
    "map_to_interpret_space": lambda _: tf.constant(segments, tf.int32),
    "ref_value": np.zeros(3, np.float32),
}


@tf.function(reduce_retracing=True)
def forward(some):
    return model(some, training=False)


@tf.function(reduce_retracing=True)
def back(some):
    with tf.GradientTape() as tape:
        tape.watch(some)
        score = model(some, training=False)[:, 0]
    return tape.gradient(score, some)


def bare(run):
    return lambda count: in_batches(
        lambda some: run(tf.constant(some)).numpy(), images, count, batch
    )


def method(explainer, on=images, **options):
    """How a method whose work is the images is called, with one explainer for all calls."""
    made = explainer(model, batch_size=batch, **options)
    return lambda n: made(on[:n], targets[: len(on[:n])]).numpy().squeeze(-1)


def sampling(explainer, number, of_found=lambda found: found.squeeze(-1), **options):
    """How a method is called whose work is samples, with one explainer for each number of them."""
    made = {}

    def call(n):
        if n not in made:
            made[n] = explainer(model, **{"batch_size": batch, number: n, **options})
        return of_found(made[n](one, targets[:1]).numpy())

    return call


serve(
    {
        "bare: forward": bare(forward),
        "bare: back": bare(back),
        "Xplique: saliency": method(xa.Saliency),
        "Xplique: gradient × input": method(xa.GradientInput, reducer="sum"),
        "Xplique: SmoothGrad": sampling(
            xa.SmoothGrad,
            "nb_samples",
            lambda found: np.abs(found).max(axis=-1),
            noise=noise,
            reducer=None,
        ),
        "Xplique: integrated gradients": sampling(xa.IntegratedGradients, "steps", reducer="sum"),
        "Xplique: Grad-CAM": method(xa.GradCAM, conv_layer=str(asked["layer"])),
        "Xplique: occlusion": method(xa.Occlusion, one, patch_size=patch, patch_stride=patch),
        "Xplique: LIME": sampling(xa.Lime, "nb_samples", **parts),
        "Xplique: RISE": sampling(xa.Rise, "nb_samples"),
        "Xplique: Shapley values": sampling(xa.KernelShap, "nb_samples", **parts),
    },
    "tensorflow",
    "xplique",
)
