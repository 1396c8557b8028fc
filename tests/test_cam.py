"""Grad-CAM is what its definition says, for networks of every make, and leaves them as they are."""

import functools
import gc
import warnings
import weakref

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from course_utils import cam, datasets, models
from course_utils._scores import score_model
from course_utils.cam import grad_cam

SHAPE = (12, 10, 3)
IMAGES = np.random.default_rng(0).uniform(size=(3, *SHAPE)).astype(np.float32)


def by_hand(model, tail, images, targets):
    """Grad-CAM, step by step, of a model from images to maps and a tail from maps to scores."""
    maps = tf.constant(model(images, training=False))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        outputs = tail(maps, training=False)
        picked = tf.stack([row[t] for row, t in zip(outputs, targets, strict=True)])
    weights = tape.gradient(picked, maps).numpy().mean(axis=(1, 2))
    heatmaps = []
    for weight, features, image in zip(weights, maps.numpy(), images, strict=True):
        summed = sum(w * features[..., k] for k, w in enumerate(weight))
        heatmap = cv2.resize(np.maximum(summed, 0), image.shape[1::-1])
        heatmaps.append(heatmap / heatmap.max() if heatmap.max() > 0 else heatmap)
    return np.array(heatmaps)


def varied(model, seed=0):
    """Biases and the four of BatchNormalization that are not 0 or 1."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(rng.uniform(0.3, 1.2, weight.shape))
    return model


def two_parts(seed=0, shape=SHAPE):
    """A network with BatchNormalization and an Add up to its maps, and a tail from maps to scores.

    The tail is not linear in the maps, so that gradients differ from place to place.
    """
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Add()([x, layers.Conv2D(6, 3, padding="same")(x)])
    # With oneDNN, TensorFlow takes 0.2 for any other slope of a LeakyReLU behind a sum.
    body = keras.Model(inputs, layers.LeakyReLU(0.2, name="maps")(x), name="body")
    inputs = keras.Input(body.output_shape[1:])
    x = layers.Dropout(0.5)(layers.MaxPooling2D(2, name="pool")(inputs))
    x = layers.Dense(8, activation="tanh")(layers.Flatten()(x))
    tail = keras.Model(inputs, layers.Dense(4)(x), name="tail")
    return varied(body, seed), varied(tail, seed)


def joined(body, tail, last):
    """One flat network of two, ending in the layer `last`."""
    x = body.output
    for layer in tail.layers[1:]:
        x = layer(x)
    return keras.Model(body.input, last(x))


# The definition


def a_two_filter_network(head):
    """Filter 0 sees red, filter 1 green; the Dense layer after their means has the given weights.

    With 1 × 1 filters, the maps are as large as the image, so that nothing is interpolated.
    """
    model = keras.Sequential(
        [
            keras.Input((2, 3, 3)),
            layers.Conv2D(2, 1, activation="relu", use_bias=False, name="maps"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(len(head[0]), activation="softmax"),
        ]
    )
    model.layers[0].set_weights([np.float32([[[[1, 0], [0, 1], [0, 0]]]])])
    model.layers[2].set_weights([np.float32(head), np.zeros(len(head[0]), np.float32)])
    return model


RED = np.float32([[0, 1, 2], [3, 4, 5]])
GREEN = np.float32([[5, 0, 0], [0, 4, -7]])
COLOURS = np.stack([RED, GREEN, np.full_like(RED, 9)], axis=-1)[np.newaxis]


def test_grad_cam_of_two_filters_is_what_a_hand_computes():
    model = a_two_filter_network([[2, -1], [-3, 1]])
    # Class 0: 2 red - 3 green is positive where green is small, at most 10.
    expected = np.float32([[0, 2, 4], [6, 0, 10]]) / 10
    np.testing.assert_allclose(grad_cam(model, COLOURS, 0)[0], expected, atol=1e-6)
    # Class 1: green - red, once the ReLU has cut -7 to 0.
    expected = np.float32([[5, 0, 0], [0, 0, 0]]) / 5
    np.testing.assert_allclose(grad_cam(model, COLOURS, 1)[0], expected, atol=1e-6)
    both = grad_cam(model, np.repeat(COLOURS, 2, axis=0), [1, 0])
    np.testing.assert_allclose(both[0], expected, atol=1e-6)


def test_the_probability_of_two_classes_weighs_the_maps_by_the_difference_of_their_weights():
    model = a_two_filter_network([[2, -1], [-3, 1]])
    expected = np.maximum(3 * RED - 4 * np.maximum(GREEN, 0), 0)
    found = grad_cam(model, COLOURS, 0, score="probability")[0]
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-6)


def test_maps_that_all_speak_against_the_target_give_zeros_and_no_warning():
    model = a_two_filter_network([[-2, 0], [-3, 0]])
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = grad_cam(model, COLOURS, [0])
    assert found.dtype == np.float32
    assert np.array_equal(found, np.zeros((1, 2, 3)))


def test_of_several_images_only_those_without_a_positive_part_are_zero():
    model = a_two_filter_network([[-2, 1], [-3, 0]])
    found = grad_cam(model, np.repeat(COLOURS, 3, axis=0), [1, 0, 1])
    np.testing.assert_allclose(found[[0, 2]], [RED / 5, RED / 5], atol=1e-6)
    assert not found[1].any()


def test_a_dead_network_is_explained_by_zeros():
    body, tail = two_parts()
    model = joined(body, tail, layers.Softmax())
    model.set_weights([0 * w for w in model.get_weights()])
    with np.errstate(all="raise"):
        assert np.array_equal(grad_cam(model, IMAGES, 1), np.zeros((3, 12, 10)))


def test_a_broken_network_is_not_explained_by_zeros():
    model = a_two_filter_network([[np.nan, 1], [1, 1]])
    assert np.isnan(grad_cam(model, COLOURS, 0)).all()


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(0, 4), st.integers(2, 9), st.integers(2, 9))
def test_it_is_the_class_activation_map_where_a_dense_layer_follows_the_means(
    seed, target, height, width
):
    """Zhou et al. weigh each map by its weight in the Dense layer."""
    rng = np.random.default_rng(seed)
    model, images = a_gap_network(), rng.normal(size=(2, height, width, 3)).astype(np.float32)
    kernel = rng.normal(size=(6, 5)).astype(np.float32)
    model.layers[-1].set_weights([kernel, rng.normal(size=5)])
    maps = model.layers[1](images).numpy()
    expected = np.maximum(maps @ kernel[:, target], 0)
    largest = expected.max(axis=(1, 2), keepdims=True)
    expected = np.divide(expected, largest, out=np.zeros_like(expected), where=largest > 0)
    np.testing.assert_allclose(grad_cam(model, images, target), expected, atol=1e-4)


@functools.cache
def a_gap_network():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(x))


def test_the_map_is_stretched_by_halves_of_pixels_and_not_from_corner_to_corner():
    """A map of 2 × 2 on 4 × 4 pixels has its centres between the pixels 0 and 1, and 2 and 3."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.AveragePooling2D(2),
            layers.Conv2D(1, 1, kernel_initializer="ones"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, kernel_initializer="ones"),
        ]
    )
    image = np.kron([[0, 1], [0, 1]], np.ones((2, 2)))[np.newaxis, ..., np.newaxis]
    np.testing.assert_allclose(grad_cam(model, image, 0)[0], [[0, 0.25, 0.75, 1]] * 4, atol=1e-6)


# Networks of every make


@pytest.mark.parametrize("head", ["linear", "softmax", "sigmoid"])
@pytest.mark.parametrize("shape", [SHAPE, (9, 17, 3)])
def test_functional_networks_with_an_add_and_batch_normalisation_give_what_a_hand_does(head, shape):
    body, tail = two_parts(1, shape)
    images = np.random.default_rng(1).uniform(size=(3, *shape)).astype(np.float32)
    expected = by_hand(body, tail, images, [3, 0, 2])
    assert (expected.max(axis=(1, 2)) == 1).all()
    model = joined(body, tail, layers.Activation(head))
    found = grad_cam(model, images, [3, 0, 2], layer=body.layers[-1].name)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(14, 8, 3), (9, 23, 3)])
def test_networks_for_images_of_any_size_give_what_a_hand_does(shape):
    body, tail = of_any_size()
    images = np.random.default_rng(1).uniform(size=(3, *shape)).astype(np.float32)
    expected = by_hand(body, tail, images, [3, 0, 2])
    assert (expected.max(axis=(1, 2)) == 1).any()
    found = grad_cam(joined(body, tail, layers.Softmax()), images, [3, 0, 2])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def of_any_size():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((None, None, 3))
    body = keras.Model(inputs, layers.Conv2D(5, 3, strides=2, activation="relu")(inputs))
    inputs = keras.Input((None, None, 5))
    x = layers.GlobalMaxPooling2D()(inputs)
    return varied(body), varied(keras.Model(inputs, layers.Dense(4)(x)))


def test_one_sigmoid_output_has_two_classes():
    body, tail = two_parts(7)
    tail = keras.Model(tail.inputs, layers.Dense(1)(tail.layers[-2].output))
    model = joined(body, tail, layers.Activation("sigmoid"))
    one = by_hand(body, tail, IMAGES, [0, 0, 0])
    none = by_hand(body, lambda x, **options: -tail(x, **options), IMAGES, [0, 0, 0])
    assert one.any(axis=(1, 2)).all()
    assert none.any(axis=(1, 2)).all()
    for score in ("logit", "probability"):
        found = grad_cam(model, IMAGES, 1, score=score, layer="maps")
        np.testing.assert_allclose(found, one, atol=1e-4)
        found = grad_cam(model, IMAGES, [0, 1, 0], score=score, layer="maps")
        np.testing.assert_allclose(found[[0, 2]], none[[0, 2]], atol=1e-4)
        np.testing.assert_allclose(found[1], one[1], atol=1e-4)


def sequential_of(body, tail):
    return keras.Sequential([keras.Input(SHAPE), body, tail, layers.Softmax()])


def functional_of(body, tail):
    inputs = keras.Input(SHAPE)
    outputs = layers.Activation("softmax")(tail(body(inputs, training=False)))
    return keras.Model([inputs], outputs)


def ending_in_a_model(body, tail):
    """The whole network, softmax included, is the last layer of another."""
    whole = joined(body, tail, layers.Softmax())
    return keras.Sequential([keras.Input(SHAPE), layers.Rescaling(1.0), whole])


def nested_twice(body, tail):
    return keras.Sequential([keras.Sequential([keras.Input(SHAPE), body]), tail])


@pytest.mark.parametrize("make", [sequential_of, functional_of, ending_in_a_model, nested_twice])
def test_nested_networks_give_what_a_hand_does(make):
    body, tail = two_parts(4)
    expected = by_hand(body, tail, IMAGES, [1, 2, 3])
    model = make(body, tail)
    for layer in ("maps", body.layers[-1]):
        found = grad_cam(model, IMAGES, [1, 2, 3], layer=layer)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_layer_goes_by_name_path_index_or_itself():
    body, tail = two_parts(5)
    model = sequential_of(body, tail)
    expected = by_hand(body, tail, IMAGES, [1, 1, 1])
    # The body as a whole puts out the maps of its last layer.
    for layer in ("maps", "body/maps", body.layers[-1], "body", body, 0, -3, np.int64(0)):
        found = grad_cam(model, IMAGES, 1, layer=layer)
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=str(layer))
    other = grad_cam(model, IMAGES, 1, layer="pool")
    assert not np.allclose(other, expected, atol=0.05)


def test_layers_of_equal_names_are_not_confused():
    def branch(seed):
        inputs = keras.Input(SHAPE)
        start = keras.initializers.GlorotUniform(seed)
        maps = layers.Conv2D(3, 3, name="conv", kernel_initializer=start)(inputs)
        return keras.Model(inputs, maps, name=f"branch_{seed}")

    one, two = branch(1), branch(2)
    inputs = keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(layers.Concatenate()([one(inputs), two(inputs)]))
    model = varied(keras.Model(inputs, layers.Dense(2)(x)))
    kernel = model.layers[-1].kernel.numpy()[:, 1]
    for part, weights in ((one, kernel[:3]), (two, kernel[3:])):
        expected = np.maximum(part(IMAGES).numpy() @ weights, 0)
        expected = np.array([cv2.resize(m, (10, 12)) for m in expected])
        largest = expected.max(axis=(1, 2), keepdims=True)
        expected /= np.where(largest > 0, largest, 1)  # nothing speaks for the class: zeros
        for layer in (part.layers[1], f"{part.name}/conv"):
            found = grad_cam(model, IMAGES, 1, layer=layer)
            np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"several layers 'conv': branch_1/conv, branch_2/conv"):
        grad_cam(model, IMAGES, 1, layer="conv")


def test_a_layer_that_is_called_twice_counts_where_it_was_called_last():
    keras.utils.set_random_seed(6)
    conv = layers.Conv2D(3, 3, padding="same", activation="relu", bias_initializer="ones")
    inputs = keras.Input((12, 10, 3))
    first = keras.Model(inputs, conv(inputs))
    x = layers.GlobalAveragePooling2D()(conv(first.output))
    model = keras.Model(inputs, layers.Dense(2)(x))
    maps = conv(first(IMAGES)).numpy()
    expected = np.maximum(maps @ model.layers[-1].kernel.numpy()[:, 0], 0)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(grad_cam(model, IMAGES, 0, layer=conv), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("digits", "conv2d_2"),
        ("squares", "conv_3"),
        ("scenes_fair", "conv_3"),
        ("speech", "relu_8"),
        ("efficientnet", "top_activation"),
    ],
)
def test_the_default_is_the_last_layer_before_poolings(name, layer):
    if name == "efficientnet":
        model = models.imagenet_classifier().model
    else:
        model = models.load_trained(name)
    chosen = cam._find_maps(model, None)
    later = [x for x in model.layers[model.layers.index(chosen) + 1 :] if cam._is_map(x)]
    assert all(isinstance(x, cam._POOLS_OR_PADS) for x in later)
    assert isinstance(chosen, (layers.Conv2D, layers.ReLU, layers.Activation))
    if name != "efficientnet":
        assert chosen.name == layer


def test_the_default_lies_within_a_nested_model_and_skips_maps_of_one_place():
    body, _ = two_parts(7)
    x = layers.GlobalAveragePooling2D(keepdims=True)(body.output)
    x = layers.Conv2D(4, 1)(x)  # one place: nothing to see on a map
    whole = keras.Model(body.input, layers.Flatten()(x))
    model = keras.Sequential([keras.Input(SHAPE), whole])
    assert cam._find_maps(model, None) is body.layers[-1]


def test_half_precision_layers_give_float32_maps():
    def build(dtype):
        keras.utils.set_random_seed(8)
        parts = [
            layers.Conv2D(4, 3, activation="relu", dtype=dtype),
            layers.GlobalAveragePooling2D(dtype=dtype),
            layers.Dense(2, dtype=dtype, bias_initializer="ones"),
        ]
        return keras.Sequential([keras.Input(SHAPE), *parts])

    plain = build("float32")
    target = int((plain.layers[-1].kernel.numpy().sum(axis=0)).argmax())
    expected = grad_cam(plain, IMAGES, target)
    for dtype in ("mixed_float16", "mixed_bfloat16"):
        found = grad_cam(build(dtype), IMAGES, target)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=0.05)


# However it is run


def test_batches_do_not_matter_and_the_same_call_gives_the_same_bits():
    model = models.load_trained("digits")
    images = datasets.load_digits()[1][0][:7]
    kept, targets = images.copy(), np.arange(7)
    first, again = (grad_cam(model, images, targets) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(images, kept)
    for batch_size in (1, 3, 100):
        np.testing.assert_allclose(
            grad_cam(model, images, targets, batch_size=batch_size), first, atol=1e-4
        )


def test_no_more_images_than_batch_size_are_in_a_pass(monkeypatch):
    taken, compiled = [], cam._compiled

    def counting(*arguments):
        run = compiled(*arguments)
        return lambda images, targets: taken.append(len(images)) or run(images, targets)

    monkeypatch.setattr(cam, "_compiled", counting)
    grad_cam(a_gap_network(), np.repeat(IMAGES, 3, axis=0), 0, batch_size=4)
    assert taken == [4, 4, 1]


def test_one_tracing_does_for_all_numbers_of_images():
    body, tail = two_parts(9)
    model = joined(body, tail, layers.Softmax())
    for n in (1, 2, 3):
        grad_cam(model, IMAGES[:n], np.arange(n), batch_size=2)
        grad_cam(model, IMAGES[:n], 1, layer="maps")
    run = cam._compiled(score_model(model, "logit"), body.layers[-1], cam._averaged)
    assert run.experimental_get_tracing_count() == 1


def test_the_model_is_left_as_it_was():
    body, tail = two_parts(10)
    model = sequential_of(body, tail)
    weights, outputs, config = model.get_weights(), model(IMAGES).numpy(), model.get_config()
    for layer in (None, "maps", "body", "pool"):
        grad_cam(model, IMAGES, 0, layer=layer)
    assert all(map(np.array_equal, model.get_weights(), weights))
    np.testing.assert_allclose(model(IMAGES).numpy(), outputs, atol=1e-6)
    assert model.get_config() == config
    every = [model, *model.layers, *body.layers, *tail.layers]
    assert not any("call" in vars(layer) for layer in every)


class Refusing(layers.Layer):
    """Works until it is told not to."""

    willing = True

    def call(self, inputs):
        if not self.willing:
            raise RuntimeError("I refuse.")
        return inputs


def test_the_layer_is_itself_again_when_tracing_fails():
    refusing = Refusing()
    parts = [layers.Conv2D(2, 3, name="maps"), refusing, layers.Flatten(), layers.Dense(2)]
    model = keras.Sequential([keras.Input(SHAPE), *parts])
    refusing.willing = False
    with pytest.raises(RuntimeError, match="I refuse"):
        grad_cam(model, IMAGES, 0, layer="maps")
    assert "call" not in vars(model.layers[0])
    refusing.willing = True
    assert grad_cam(model, IMAGES, 0, layer="maps").any()


def test_a_layer_that_someone_else_listens_to_is_given_back_so():
    model = a_two_filter_network([[2, -1], [-3, 1]])
    heard, call = [], model.layers[0].call

    def listen(inputs):
        heard.append(inputs.shape)
        return call(inputs)

    model.layers[0].call = listen
    found = grad_cam(model, COLOURS, 0)
    assert model.layers[0].call is listen
    assert heard
    np.testing.assert_allclose(found[0], np.float32([[0, 2, 4], [6, 0, 10]]) / 10, atol=1e-6)


def test_new_weights_are_used_and_dropped_models_are_forgotten():
    model = a_two_filter_network([[2, -1], [-3, 1]])
    grad_cam(model, COLOURS, 0)
    model.layers[2].kernel.assign([[0, 0], [1, 0]])
    expected = np.maximum(GREEN, 0) / 5
    np.testing.assert_allclose(grad_cam(model, COLOURS, 0)[0], expected, atol=1e-6)
    alive = [weakref.ref(model), weakref.ref(model.layers[0])]
    del model
    for _ in range(5):  # the model, what was made of it, and the layers of both
        gc.collect()
    assert [reference() for reference in alive] == [None, None]


# What does not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES[0]}, r"image\[np.newaxis\]"),
        ({"images": IMAGES[..., :1]}, r"takes images of shape \(any, any, 3\)"),
        ({"images": IMAGES[:0]}, "empty batch"),
        ({"images": np.full_like(IMAGES, np.nan)}, "NaN or infinity"),
        ({"images": IMAGES.astype(str)}, "must be numbers"),
        ({"targets": 5}, "target 5 does not exist: the model has classes 0 to 4"),
        ({"targets": [0, 1]}, r"got shape \(2,\)"),
        ({"targets": 0.5}, "whole numbers"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
        ({"score": "loss"}, '"logit" or "probability", got \'loss\''),
        ({"layer": "conv9"}, r"no layer 'conv9'. It has 0: \w+, 1: conv2d"),
        ({"layer": 17}, "no layer 17. It has 0: "),
        ({"layer": 0}, "'input_layer.*' puts out no feature maps. Layers that do: conv2d"),
        ({"layer": -1}, "'dense.*' puts out no feature maps. Layers that do: conv2d"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments = {"images": IMAGES, "targets": 0, **changes}
    with pytest.raises(ValueError, match=message):
        grad_cam(a_gap_network(), **arguments)


def test_a_model_without_a_convolution_is_refused_unless_a_layer_is_named():
    parts = [layers.Rescaling(2.0, name="twice"), layers.Flatten(), layers.Dense(2)]
    model = keras.Sequential([keras.Input(SHAPE), *parts], name="flat")
    with pytest.raises(ValueError, match=r"^flat has no convolution, .* occlusion or LIME.$"):
        grad_cam(model, IMAGES, 0)
    assert grad_cam(model, IMAGES, 0, layer="twice").shape == (3, 12, 10)


def test_convolutions_that_leave_one_place_are_no_maps():
    parts = [layers.Conv2D(4, (12, 10)), layers.Flatten(), layers.Dense(2)]
    model = keras.Sequential([keras.Input(SHAPE), *parts])
    with pytest.raises(ValueError, match="no feature maps"):
        grad_cam(model, IMAGES, 0)


def test_a_layer_that_no_gradient_reaches_is_refused_in_one_line():
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(2, 3, name="behind")(inputs)
    x = ops.stop_gradient(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(ValueError, match=r"^no gradient leads .* layer 'behind'\. Name another"):
        grad_cam(model, IMAGES, 0)


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_models_of_scores_of_pixels_or_without_a_graph_are_refused(score):
    model = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match=r"scores of shape \(N, K\)"):
        grad_cam(model, IMAGES, 0, score=score)
    with pytest.raises(ValueError, match="Input layer"):
        grad_cam(keras.Sequential([layers.Conv2D(2, 3)]), IMAGES, 0, score=score)
