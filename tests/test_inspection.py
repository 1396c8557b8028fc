"""Layer tables, receptive fields, filters and feature maps."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from course_utils import inspection, models


def positive(model):
    """Give every kernel positive weights and no bias, so that no path through it cancels."""
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(np.full(weight.shape, 0.0 if "bias" in weight.path else 0.1))
    return model


def pixels_seen(model, layer_name, row, column):
    """By experiment: rows and columns of the pixels whose change moves a unit, as (first, last)."""
    height, width = model.input_shape[1:3]
    channels = model.input_shape[3]
    pixels = np.eye(height * width, dtype=np.float32).reshape(-1, height, width, 1)
    maps = inspection.feature_maps(model, np.repeat(pixels, channels, axis=-1), layer_name)
    moved = np.abs(maps[:, row, column]).max(axis=-1).reshape(height, width) > 1e-9
    rows, columns = np.nonzero(moved.any(axis=1))[0], np.nonzero(moved.any(axis=0))[0]
    if not len(rows):
        return None
    return (rows[0], rows[-1]), (columns[0], columns[-1])


def pixels_expected(field, row, column):
    """By the formula, as (first, last); parts of it can lie in the padding."""
    firsts = [s + u * t for s, u, t in zip(field.start, (row, column), field.stride, strict=True)]
    return tuple((first, first + n - 1) for first, n in zip(firsts, field.size, strict=True))


def test_the_digit_networks_table_is_the_documents():
    table = inspection.layer_table(models.digits_cnn())
    assert [row.parameters for row in table] == [320, 18_496, 0, 0, 0, 1_179_776, 0, 1_290]
    assert table[1] == ("conv2d_2", "Conv2D", (None, 24, 24, 64), 18_496)


def test_the_table_counts_parameters_that_are_not_trained():
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.BatchNormalization()])
    assert inspection.layer_table(model)[0].parameters == 12


def test_the_digit_networks_receptive_fields():
    fields = {f.name: f for f in inspection.receptive_fields(models.digits_cnn())}
    assert fields["conv2d_1"][1:] == ((3, 3), (1, 1), (0, 0))
    assert fields["conv2d_2"][1:] == ((5, 5), (1, 1), (0, 0))
    assert fields["max_pooling2d_1"][1:] == ((6, 6), (2, 2), (0, 0))
    assert fields["preds"][1:] == ((28, 28), (0, 0), (0, 0))


step = st.tuples(
    st.sampled_from(["conv", "depthwise", "pool", "dilated"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(["same", "valid"]),
)


CHAINS = {"steps": st.lists(step, min_size=1, max_size=3), "height": st.integers(9, 15)}


@settings(max_examples=3)
@given(**CHAINS)
def test_receptive_fields_are_those_an_experiment_finds(steps, height):
    experiment(steps, height)


@pytest.mark.slow
@settings(max_examples=30)
@given(**CHAINS)
def test_receptive_fields_of_many_chains_are_those_an_experiment_finds(steps, height):
    experiment(steps, height)


def experiment(steps, height):
    """Build a chain of layers, and hold its receptive field against what changes which output."""
    image = (height, 12)
    model = keras.Sequential([keras.Input((*image, 1))])
    for i, (kind, window, stride, padding) in enumerate(steps):
        options = {"padding": padding, "name": f"layer_{i}"}
        if kind == "pool":
            layer = layers.AveragePooling2D((window, 2), strides=stride, **options)
        elif kind == "dilated":
            layer = layers.Conv2D(2, (2, window), dilation_rate=2, use_bias=False, **options)
        elif kind == "depthwise":
            layer = layers.DepthwiseConv2D(window, strides=stride, use_bias=False, **options)
        else:
            layer = layers.Conv2D(2, (window, 2), strides=stride, use_bias=False, **options)
        try:
            model.add(layer)
        except ValueError:  # the image has become smaller than the window
            return
    positive(model)
    field = inspection.receptive_fields(model)[-1]
    rows, columns = model.output_shape[1:3]
    for unit in [(0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1)]:
        expected = pixels_expected(field, *unit)
        inside = all(a >= 0 and b < n for (a, b), n in zip(expected, image, strict=True))
        seen = pixels_seen(model, field.name, *unit)
        if inside:
            assert seen == expected
        elif seen:  # a unit can lie in the padding and see no pixel
            for (first, last), (least, most) in zip(seen, expected, strict=True):
                assert least <= first <= last <= most


def test_branches_see_together_what_the_wider_one_sees():
    image = keras.Input((16, 16, 1))
    narrow = layers.Conv2D(2, 1, use_bias=False)(image)
    wide = layers.Conv2D(2, 5, padding="same", use_bias=False)(image)
    joined = layers.Add(name="joined")([narrow, wide])
    model = positive(keras.Model(image, layers.ReLU(name="out")(joined)))
    field = inspection.receptive_fields(model)[-1]
    assert (field.size, field.start) == ((5, 5), (-2, -2))
    assert pixels_seen(model, "joined", 8, 8) == ((6, 10), (6, 10))


def test_padding_and_cropping_shift_the_field():
    model = keras.Sequential(
        [
            keras.Input((10, 10, 1)),
            layers.ZeroPadding2D(((1, 0), (2, 0))),
            layers.Cropping2D(((0, 0), (3, 0))),
            layers.Conv2D(1, 3, use_bias=False, name="conv"),
        ]
    )
    field = inspection.receptive_fields(positive(model))[-1]
    assert field.start == (-1, 1)
    assert pixels_seen(model, "conv", 4, 4) == ((3, 5), (5, 7))


def test_the_shipped_imagenet_network_is_known_layer_by_layer():
    fields = {f.name: f for f in inspection.receptive_fields(models.efficientnet_lite0())}
    assert fields["stem"].size == (3, 3)
    assert fields["head_relu"].stride == (32, 32)


def test_a_layer_that_another_model_used_first_is_followed_in_this_one():
    shared = layers.Conv2D(2, 3, strides=2, use_bias=False, name="shared")
    shared(keras.Input((32, 32, 1)))
    image = keras.Input((9, 9, 1))
    model = positive(keras.Model(image, shared(layers.ZeroPadding2D(1)(image))))
    assert inspection.layer_table(model)[-1].output_shape == (None, 5, 5, 2)
    assert inspection.receptive_fields(model)[-1].start == (-1, -1)
    assert pixels_seen(model, "shared", 1, 1) == ((1, 3), (1, 3))


def test_a_layer_that_is_not_known_is_named():
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.UpSampling2D(name="bigger")])
    with pytest.raises(ValueError, match=r"layer 'bigger' \(UpSampling2D\) is not defined"):
        inspection.receptive_fields(model)


def test_branches_with_different_strides_are_refused():
    image = keras.Input((8, 8, 1))
    coarse = layers.MaxPooling2D(2)(image)
    fine = layers.Cropping2D(2)(image)
    model = keras.Model(image, layers.Add(name="sum")([coarse, fine]))
    with pytest.raises(ValueError, match=r"'sum'.*different strides"):
        inspection.receptive_fields(model)


def test_same_padding_of_an_open_size_is_refused():
    image = keras.Input((None, None, 1))
    model = keras.Model(image, layers.Conv2D(1, 3, padding="same", name="conv")(image))
    with pytest.raises(ValueError, match=r"'conv'.*fixed image size"):
        inspection.receptive_fields(model)


@pytest.mark.parametrize("size", [(None, None), (8, None)])
@pytest.mark.parametrize("pool", [layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D])
def test_the_whole_of_an_open_size_is_refused(size, pool):
    image = keras.Input((*size, 1))
    maps = layers.Conv2D(2, 3, name="conv")(image)
    fields = inspection.receptive_fields(keras.Model(image, maps))
    assert fields[-1].size == (3, 3), "what does not ask for the size is told"
    model = keras.Model(image, layers.Dense(2)(pool(name="pool")(maps)))
    with pytest.raises(ValueError, match=r"'pool' sees the whole image.*fixed image size"):
        inspection.receptive_fields(model)


def test_a_model_of_vectors_has_no_receptive_fields():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="one input of images"):
        inspection.receptive_fields(model)


def test_a_model_that_is_not_built_is_refused():
    model = keras.Sequential([layers.Conv2D(2, 3)])
    for look in (inspection.layer_table, inspection.receptive_fields):
        with pytest.raises(ValueError, match="not built"):
            look(model)


def test_filters_are_the_kernels_in_order():
    model = models.digits_cnn()
    kernel = model.get_layer("conv2d_2").get_weights()[0]
    for layer in ("conv2d_2", 1, model.layers[1]):
        assert np.array_equal(inspection.filters(model, layer), kernel)


def test_filters_of_a_depthwise_convolution_see_one_channel_each():
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)]
    )
    image = np.random.default_rng(0).random((1, 6, 6, 3), np.float32)
    kernels = inspection.filters(model, 0)
    assert kernels.shape == (3, 3, 1, 6)
    maps = inspection.feature_maps(model, image, 0)
    for i in range(6):  # filter i looks at channel i // 2
        by_hand = (image[0, :3, :3, i // 2] * kernels[:, :, 0, i]).sum()
        assert maps[0, 0, 0, i] == pytest.approx(by_hand, abs=1e-5)


def test_a_layer_without_filters_names_those_that_have():
    with pytest.raises(ValueError, match=r"'dense_1' is a Dense.*'conv2d_1', 'conv2d_2'"):
        inspection.filters(models.digits_cnn(), "dense_1")


@pytest.mark.parametrize("layer", ["conv_9", 8, -9, None])
def test_an_unknown_layer_lists_the_known_ones(layer):
    with pytest.raises(ValueError, match=r"no layer.*0: conv2d_1, 1: conv2d_2"):
        inspection.filters(models.digits_cnn(), layer)


def test_feature_maps_are_sums_of_products_bias_and_relu():
    model = models.load_trained("digits")
    image = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    kernel, bias = model.layers[0].get_weights()
    windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], (3, 3), axis=(1, 2))
    by_hand = np.maximum(np.einsum("nijkl,klf->nijf", windows, kernel[:, :, 0]) + bias, 0)
    maps = inspection.feature_maps(model, image, "conv2d_1", batch_size=2)
    assert np.allclose(maps, by_hand, atol=1e-5)


def test_feature_maps_do_not_drop_out():
    model = models.load_trained("digits")
    image = np.random.default_rng(0).random((1, 28, 28, 1), np.float32)
    before, after = (inspection.feature_maps(model, image, n) for n in (2, 3))
    np.testing.assert_allclose(before, after, atol=1e-6)


def bad(**changes):
    image = np.zeros((1, 28, 28, 1), np.float32)
    for index, value in changes.values():
        image[index] = value
    return image


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((28, 28, 1)), r"Add the batch axis"),
        (np.zeros((1, 28, 28, 3)), r"takes images of shape \(28, 28, 1\), got \(28, 28, 3\)"),
        (np.zeros((1, 27, 28, 1)), r"got \(27, 28, 1\)"),
        (np.zeros((0, 28, 28, 1)), "empty batch"),
        (np.full((1, 28, 28, 1), "a"), "must be numbers"),
        (bad(nan=((0, 3, 3, 0), np.nan)), "image 0 holds NaN or infinity"),
        (bad(inf=((0, 3, 3, 0), np.inf)), "image 0 holds NaN or infinity"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        inspection.feature_maps(models.digits_cnn(), images, "conv2d_1")


def test_a_vector_has_no_feature_maps():
    with pytest.raises(ValueError, match=r"'dense_1' has no feature maps.*\(None, 128\)"):
        inspection.feature_maps(models.digits_cnn(), bad(), "dense_1")
