"""The passes that all is measured by: a network as Keras calls it, compiled by TensorFlow."""

import functools

import tensorflow as tf

from course_utils._scores import images_spec, pick

FOLDED = (
    "Where a batch normalisation follows a convolution, as in EfficientNet-Lite0, this course "
    "computes the two as one, which bare passes do not, so that its ratio can be below 1."
)


@functools.cache
def forward(model):
    """The compiled pass, images to outputs, for any number of images."""

    @tf.function(input_signature=[images_spec(model)], autograph=False)
    def run(images):
        return model(images, training=False)

    return run


@functools.cache
def gradient(model):
    """The compiled passes forward and back: images, targets to gradients of the targets' scores."""
    specs = [images_spec(model), tf.TensorSpec((None,), tf.int64)]

    @tf.function(input_signature=specs, autograph=False)
    def run(images, targets):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            scores = pick(model(images, training=False), targets)
        return tape.gradient(scores, images)

    return run
