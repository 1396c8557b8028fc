"""logit_model: the scores before the final softmax or sigmoid, whatever the model is made of."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from course_utils import models

SHAPE = (8, 8, 1)


@pytest.fixture(autouse=True)
def _same_weights_each_run():
    keras.utils.set_random_seed(0)


def images(n=5, seed=0):
    return np.random.default_rng(seed).random((n, *SHAPE), np.float32)


def sequential(*tail):
    return keras.Sequential([keras.Input(SHAPE), layers.Conv2D(3, 3), *tail])


def functional(*tail, shape=SHAPE):
    inputs = tensor = keras.Input(shape)
    for layer in tail:
        tensor = layer(tensor)
    return keras.Model(inputs, tensor)


def dense(activation, units=4, **options):
    # Weights well above the default, so that scores and probabilities are far apart.
    spread = keras.initializers.RandomNormal(stddev=1.0)
    return layers.Dense(
        units, activation=activation, kernel_initializer=spread, bias_initializer=spread, **options
    )


def conv(activation):
    return layers.Conv2D(4, 8, 2, activation=activation, padding="same", bias_initializer="normal")


def nested(depth, last):
    """A model whose last layer is a model whose last layer is a model ..."""
    model = functional(layers.Flatten(), last, shape=(6, 6, 3))
    for _ in range(depth - 1):
        model = functional(layers.ReLU(), model, shape=(6, 6, 3))
    return sequential(model)


def lazily_built():
    model = keras.Sequential([layers.Conv2D(3, 3), layers.Flatten(), dense("softmax")])
    model(images(2))
    return model


def with_training_argument():
    inner = functional(layers.Flatten(), layers.Dropout(0.9), dense("softmax"))
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, inner(inputs, training=False))


SOFTMAX = {
    "fused, Sequential": lambda: sequential(layers.Flatten(), dense("softmax")),
    "fused, Functional": lambda: functional(layers.Flatten(), dense("softmax")),
    "fused, no bias": lambda: sequential(layers.Flatten(), dense("softmax", use_bias=False)),
    "fused, convolution": lambda: functional(conv("softmax")),
    "Activation": lambda: sequential(layers.Flatten(), dense(None), layers.Activation("softmax")),
    "Softmax": lambda: functional(layers.Flatten(), dense(None), layers.Softmax()),
    "Softmax over axis 1": lambda: sequential(layers.Flatten(), dense(None), layers.Softmax(1)),
    "keras.ops": lambda: functional(layers.Flatten(), dense(None), keras.ops.softmax),
    "keras.activations": lambda: functional(
        layers.Flatten(), dense(None), keras.activations.softmax
    ),
    "tf.nn": lambda: sequential(layers.Flatten(), dense(tf.nn.softmax)),
    "a Softmax layer as activation": lambda: sequential(layers.Flatten(), dense(layers.Softmax())),
    "nested": lambda: nested(1, dense("softmax")),
    "nested thrice": lambda: nested(3, dense("softmax")),
    "nested Sequential": lambda: sequential(
        keras.Sequential([layers.Flatten(), dense("linear"), layers.Activation("softmax")])
    ),
    "built by its first call": lazily_built,
    "called with training=False": with_training_argument,
    "Dropout before the end": lambda: sequential(
        layers.Flatten(), layers.Dropout(0.5), dense("softmax")
    ),
    "the digit network": None,
}
SIGMOID = {
    "fused": lambda: sequential(layers.Flatten(), dense("sigmoid", 1)),
    "convolution": lambda: functional(conv("sigmoid")),
    "Activation": lambda: functional(
        layers.Flatten(), dense(None, 1), layers.Activation("sigmoid")
    ),
    "keras.ops": lambda: functional(layers.Flatten(), dense(None, 1), keras.ops.sigmoid),
    "nested": lambda: nested(2, dense("sigmoid", 1)),
    "several labels": lambda: sequential(layers.Flatten(), dense("sigmoid", 6)),
}


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(scores):
    return 1 / (1 + np.exp(-scores))


def assert_scores(model, squash, x):
    """`squash` of the scores is the output, the scores are no probabilities, and all is shared."""
    before, weights = model(x).numpy(), [w.numpy() for w in model.weights]
    config = model.get_config()
    logits = models.logit_model(model)
    scores = logits(x).numpy().astype(np.float64)
    np.testing.assert_allclose(squash(scores), before, rtol=0, atol=1e-6)
    assert np.abs(scores - before).max() > 0.1
    assert {id(w) for w in logits.weights} == {id(w) for w in model.weights}
    assert model.get_config() == config
    np.testing.assert_allclose(model(x).numpy(), before, rtol=0, atol=1e-6)
    for weight, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


@pytest.mark.parametrize("case", SOFTMAX)
def test_softmax_of_the_scores_is_the_output(case):
    if SOFTMAX[case] is None:
        x = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
        assert_scores(models.load_trained("digits"), softmax, x)
    else:
        assert_scores(SOFTMAX[case](), softmax, images())


@pytest.mark.parametrize("case", SIGMOID)
def test_sigmoid_of_the_scores_is_the_output(case):
    assert_scores(SIGMOID[case](), sigmoid, images())


def test_scores_of_a_known_model():
    model = functional(layers.Flatten(), layers.Dense(2, activation="softmax"), shape=(1, 2, 1))
    model.set_weights([np.array([[1.0, -2.0], [3.0, 0.5]]), np.array([10.0, 20.0])])
    scores = models.logit_model(model)(np.array([[[[2.0], [-1.0]]]]))
    np.testing.assert_allclose(scores, [[2 * 1 - 1 * 3 + 10, 2 * -2 - 1 * 0.5 + 20]], rtol=1e-6)


def test_scores_have_a_gradient_where_the_softmax_is_saturated():
    model = functional(layers.Flatten(), layers.Dense(2, activation="softmax"), shape=(1, 1, 1))
    model.set_weights([np.array([[500.0, -500.0]]), np.zeros(2)])
    x = tf.ones((1, 1, 1, 1))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        probability, score = model(x)[0, 0], models.logit_model(model)(x)[0, 0]
    assert tape.gradient(probability, x).numpy().item() == 0
    assert tape.gradient(score, x).numpy().item() == 500


def test_models_from_files_have_scores(tmp_path):
    nested(2, dense("softmax")).save(tmp_path / "model.keras")
    assert_scores(keras.models.load_model(tmp_path / "model.keras"), softmax, images())


@pytest.mark.parametrize("trained", ["model", "logits"])
def test_training_one_trains_the_other(trained):
    model = sequential(layers.Flatten(), dense("softmax"))
    logits = models.logit_model(model)
    before = model(images()).numpy()
    one = {"model": model, "logits": logits}[trained]
    one.compile(
        keras.optimizers.SGD(0.5),
        keras.losses.SparseCategoricalCrossentropy(from_logits=one is logits),
    )
    one.fit(images(), np.array([0, 1, 2, 3, 0]), epochs=3, verbose=0)
    after = model(images()).numpy()
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_allclose(softmax(logits(images()).numpy()), after, atol=1e-6)


def test_activations_and_outputs_of_the_model_stay():
    model = functional(layers.Flatten(), dense("softmax", name="preds"))
    last, output = model.get_layer("preds"), model.outputs[0]
    logits = models.logit_model(model)
    assert last.activation is keras.activations.softmax
    assert model.outputs[0] is output
    assert model.layers[-1] is last
    assert logits.inputs[0] is model.inputs[0]  # so both can be outputs of one model
    both = keras.Model(model.input, [model.outputs[0], logits.outputs[0]])
    probabilities, scores = both(images())
    np.testing.assert_allclose(softmax(scores.numpy()), probabilities, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        sequential(layers.Flatten(), dense("linear")),
        functional(layers.Flatten(), dense("relu")),
        functional(layers.Flatten(), dense("softmax"), dense(None)),
        functional(conv(None), layers.GlobalAveragePooling2D()),
        functional(layers.Flatten(), dense(None), layers.Dropout(0.5)),
        functional(layers.Flatten(), dense("tanh"), layers.Reshape((4, 1))),
        functional(layers.Flatten(), dense("log_softmax")),
        functional(layers.Flatten(), keras.ops.sin),
        nested(2, dense(None)),
    ],
)
def test_models_that_give_scores_are_returned_as_they_are(model):
    assert models.logit_model(model) is model


def test_asking_again_gives_the_same_model():
    model = nested(2, dense("softmax"))
    assert models.logit_model(model) is models.logit_model(model)


def test_a_model_with_another_tail_has_another_logit_model():
    model = sequential(layers.Flatten(), dense("softmax", 4))
    assert models.logit_model(model)(images()).shape == (5, 4)
    model.pop()
    assert models.logit_model(model) is model
    model.add(dense("softmax", 7))
    assert_scores(model, softmax, images())
    assert models.logit_model(model)(images()).shape == (5, 7)


def test_models_are_not_kept_alive():
    model = nested(2, dense("softmax"))
    models.logit_model(model)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def subclassed():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.last = dense("softmax")

        def call(self, inputs):
            return self.last(keras.ops.reshape(inputs, (-1, 64)))

    model = Subclassed()
    model(images())
    return model


class Custom(layers.Layer):
    def call(self, inputs):
        return keras.ops.softmax(inputs)


def two_outputs():
    inputs = keras.Input(SHAPE)
    flat = layers.Flatten()(inputs)
    return keras.Model(inputs, [dense("softmax")(flat), dense("softmax")(flat)])


def averaged():
    inputs = keras.Input(SHAPE)
    flat = layers.Flatten()(inputs)
    return keras.Model(inputs, layers.average([dense("softmax")(flat), dense("softmax")(flat)]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: keras.Sequential([dense("softmax")]), "give it an Input layer or call it once"),
        (subclassed, "Functional API"),
        (lambda: sequential(layers.Flatten(), subclassed()), "Functional API"),
        (two_outputs, "has 2 outputs"),
        (lambda: "model", "takes a keras.Model, got str"),
        (
            lambda: functional(layers.Flatten(), dense(None), layers.Lambda(keras.ops.softmax)),
            "Lambda is not one",
        ),
        (lambda: functional(layers.Flatten(), Custom(name="mine")), "'mine'.*Custom is not one"),
        (
            lambda: functional(layers.Flatten(), dense(lambda x: keras.ops.softmax(x))),
            "<lambda> is not one",
        ),
        (
            lambda: functional(layers.TimeDistributed(layers.Dense(3, activation="softmax"))),
            "TimeDistributed is not one",
        ),
        (
            lambda: functional(layers.Flatten(), dense("softmax", name="p"), layers.Dropout(0.5)),
            "of 'p' is followed by 'dropout",
        ),
        (
            lambda: functional(
                layers.Flatten(), dense("sigmoid"), layers.ReLU(), layers.Reshape((2, 2))
            ),
            "followed by",
        ),
        (lambda: functional(nested(1, dense("softmax")), layers.Reshape((2, 2))), "followed by"),
        (averaged, "followed by 'average"),
        (lambda: functional(conv(None), layers.Softmax(axis=1)), "over axis 1, not over the class"),
        (lambda: functional(conv(None), layers.Softmax(axis=(1, 2))), r"over axis \(1, 2\)"),
        (
            lambda: functional(layers.DepthwiseConv2D(3, activation="softmax")),
            "cannot take the activation off 'depthwise",
        ),
    ],
)
def test_what_cannot_be_looked_through_is_said_with_the_remedy(build, message):
    with pytest.raises(ValueError, match=message) as error:
        models.logit_model(build())
    if "outputs" not in message and "takes" not in message:
        assert "without its final activation" in str(error.value)
