"""Pictures say what their numbers say."""

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras import layers

from course_utils import inspection, models, plots

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def pictures(figure):
    return [image for axis in figure.axes for image in axis.images]


def test_filters_are_drawn_in_order_on_one_scale_centred_on_zero():
    kernels = inspection.filters(models.load_trained("digits"), "conv2d_1")
    figure = plots.show_filters(kernels)
    drawn = [image for axis in figure.axes if axis.get_title() for image in axis.images]
    assert len(drawn) == 32
    largest = np.abs(kernels).max()
    for i, image in enumerate(drawn):
        assert np.allclose(image.get_array(), kernels[:, :, 0, i])
        assert image.get_clim() == pytest.approx((-largest, largest))
        assert image.axes.get_title() == str(i)
    assert drawn[0].get_cmap()(0.5)[:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.02)


def test_a_colour_bar_says_what_the_values_are():
    figure = plots.show_filters(np.ones((3, 3, 1, 2)))
    assert any(axis.get_ylabel() == "weight" for axis in figure.axes)


def test_all_zero_kernels_are_drawn_without_a_warning():
    assert pictures(plots.show_filters(np.zeros((3, 3, 1, 2))))[0].get_clim() == (-1, 1)


def test_images_of_a_grid_share_one_scale():
    images = np.stack([np.zeros((4, 4)), np.full((4, 4), 7.0)])
    drawn = pictures(plots.show_grid(images, ["low", "high"]))
    assert {image.get_clim() for image in drawn} == {(0, 7)}


def test_the_architecture_names_every_shape_and_count():
    axis = plots.show_architecture(models.digits_cnn())
    words = " ".join(text.get_text() for text in axis.texts)
    for expected in ("28 × 28 × 1", "24 × 24 × 64", "18,496", "1,179,776", "9216", "Dropout"):
        assert expected in words
    assert "1,199,882" in axis.get_title()


def test_the_architecture_is_drawn_where_the_caller_says():
    _, axis = plt.subplots()
    assert plots.show_architecture(models.digits_cnn(), ax=axis) is axis


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.show_grid(np.zeros((0, 3, 3))), "no images"),
        (lambda: plots.show_grid(np.zeros((2, 3, 3, 2))), r"got \(2, 3, 3, 2\)"),
        (lambda: plots.show_grid(np.zeros((2, 3, 3)), ["one"]), "1 titles for 2 images"),
        (lambda: plots.show_filters(np.zeros((3, 3, 4))), r"got \(3, 3, 4\)"),
        (lambda: plots.show_filters(np.zeros((3, 3, 2, 4)), channel=2), "channel 2 does not exist"),
        (lambda: plots.show_architecture(models.efficientnet_lite0()), "too many to draw"),
        (
            lambda: plots.show_architecture(
                keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(1, 1)])
            ),
            "images of a fixed size",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


IMAGE = np.random.default_rng(0).uniform(size=(4, 6, 3))
HEATMAP = np.linspace(-1, 3, 24).reshape(4, 6)


def test_a_signed_heat_map_is_centred_on_zero_and_red_speaks_for_the_target():
    backdrop, drawn = plots.show_signed(IMAGE, HEATMAP).images
    assert drawn.get_clim() == (-3, 3)
    assert np.array_equal(drawn.get_array(), HEATMAP)
    red, _, blue, _ = drawn.to_rgba(3.0)
    assert red > 0.3 > blue
    red, _, blue, _ = drawn.to_rgba(-3.0)
    assert blue > 0.3 > red
    assert np.allclose(backdrop.get_array(), IMAGE.mean(axis=-1)), "no colours below colours"
    assert backdrop.get_cmap().name == "gray"
    assert 0 < drawn.get_alpha() < 1


def test_a_heat_map_of_magnitudes_goes_from_its_smallest_to_its_largest_value():
    drawn = plots.show_heatmap(IMAGE, HEATMAP).images[-1]
    assert drawn.get_clim() == (-1, 3)
    brightness = drawn.to_rgba(np.linspace(-1, 3, 9))[:, :3].sum(axis=-1)
    assert (np.diff(brightness) > 0).all()


@pytest.mark.parametrize("draw", [plots.show_heatmap, plots.show_signed])
def test_a_heat_map_s_colour_bar_says_what_the_values_are(draw):
    axis = draw(IMAGE, HEATMAP, label="drop of probability", title="a seven")
    bar = axis.images[-1].colorbar
    assert bar.ax.get_ylabel() == "drop of probability"
    assert bar.solids.get_alpha() == 1, "or its colours would not be those of the label"
    assert axis.get_title() == "a seven"


@pytest.mark.parametrize("draw", [plots.show_heatmap, plots.show_signed])
def test_a_heat_map_can_stand_alone_on_the_caller_s_axes(draw):
    _, axis = plt.subplots()
    assert draw(None, np.zeros((4, 6)), ax=axis) is axis
    assert len(axis.images) == 1
    assert axis.images[0].get_alpha() == 1


@pytest.mark.parametrize("draw", [plots.show_heatmap, plots.show_signed])
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_grey_and_coloured_images_lie_below_heat_maps(draw, shape):
    assert draw(np.ones(shape), HEATMAP).images[0].get_array().shape == (4, 6)


@pytest.mark.parametrize("draw", [plots.show_heatmap, plots.show_signed])
@pytest.mark.parametrize(
    ("image", "heatmap", "message"),
    [
        (None, HEATMAP[np.newaxis], r"got \(1, 4, 6\).*heatmaps\[0\]"),
        (IMAGE[:3], HEATMAP, r"image \(3, 6, 3\) and heatmap \(4, 6\) must have the same size"),
        (IMAGE[np.newaxis], HEATMAP, "must have the same size"),
    ],
)
def test_what_is_not_a_heat_map_of_the_image_is_refused(draw, image, heatmap, message):
    with pytest.raises(ValueError, match=message):
        draw(image, heatmap)
