"""Pictures say what their numbers say."""

from itertools import pairwise

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


def a_chain(data_format):
    """Oblong maps, more of them from layer to layer, and a vector."""
    options = {"data_format": data_format}
    first = data_format == "channels_first"
    return keras.Sequential(
        [
            keras.Input((3, 20, 12) if first else (20, 12, 3)),
            layers.Conv2D(8, 3, **options),
            layers.BatchNormalization(axis=1 if first else -1),
            layers.ReLU(),
            layers.MaxPooling2D(2, **options),
            layers.Conv2D(32, 3, **options),
            layers.Flatten(**options),
            layers.Dense(2),
        ]
    )


def test_channels_first_draws_the_slabs_of_its_twin_and_names_its_own_shapes():
    first, last = (plots.show_architecture(a_chain(f"channels_{w}")) for w in ("first", "last"))
    slabs = [[patch.get_xy() for patch in axis.patches] for axis in (first, last)]
    assert len(slabs[0]) == len(slabs[1]) == 6 * 3 + 2
    for one, other in zip(*slabs, strict=True):
        np.testing.assert_allclose(one, other)
    assert "8 × 18 × 10" in [text.get_text() for text in first.texts]
    assert "18 × 10 × 8" in [text.get_text() for text in last.texts]


def test_maps_that_are_moved_on_the_way_are_drawn_as_high_as_they_are():
    image = keras.Input((20, 12, 3))
    maps = layers.Conv2D(8, 3, data_format="channels_first")(layers.Permute((3, 1, 2))(image))
    axis = plots.show_architecture(keras.Model(image, maps))
    fronts = [patch.get_xy() for patch in axis.patches[::3]]
    heights = [np.ptp(front[:, 1]) for front in fronts]
    np.testing.assert_allclose(heights, 1.1 * np.sqrt(np.array([20, 20, 18]) / 20))


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


POINTS = np.array([[0.0, 0.0], [4.0, 1.0], [0.0, 2.0], [4.0, 3.0]])


def test_each_group_of_a_map_is_drawn_where_its_points_are():
    axis = plots.show_embedding(POINTS, ["b", "a", "b", "a"], title="a map")
    first, second = axis.collections
    assert first.get_offsets().tolist() == [[4, 1], [4, 3]]
    assert second.get_offsets().tolist() == [[0, 0], [0, 2]]
    assert [text.get_text() for text in axis.get_legend().texts] == ["a", "b"]
    assert axis.get_title() == "a map"
    assert axis.get_aspect() == 1, "distances are to scale"
    assert len(axis.get_xticks()) == len(axis.get_yticks()) == 0


def test_no_two_groups_look_the_same_and_neighbours_differ_in_colour_and_marker():
    groups = np.arange(70)
    axis = plots.show_embedding(np.stack([groups, groups], axis=1), groups, legend=False)
    assert axis.get_legend() is None
    colours = [tuple(drawn.get_facecolor()[0]) for drawn in axis.collections]
    markers = [drawn.get_paths()[0].vertices.tobytes() for drawn in axis.collections]
    assert len(set(zip(colours, markers, strict=True))) == 70
    for looks in (colours, markers):
        assert all(one != other for one, other in pairwise(looks))
    with pytest.raises(ValueError, match="71 groups are too many"):
        plots.show_embedding(np.ones((71, 2)), np.arange(71))


def test_names_stand_for_labels_in_the_legend_on_the_caller_s_axes():
    _, axis = plt.subplots()
    names = ["zero", "one", "two"]
    assert plots.show_embedding(POINTS, [2, 0, 2, 0], names=names, ax=axis) is axis
    assert [text.get_text() for text in axis.get_legend().texts] == ["zero", "two"]


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        (np.zeros((4, 3)), np.zeros(4), r"shape \(N, 2\), .* got \(4, 3\) and \(4,\)"),
        (POINTS, np.zeros(3, int), r"got \(4, 2\) and \(3,\)"),
        (np.zeros((0, 2)), [], "no points to draw"),
        (POINTS * np.nan, np.zeros(4, int), "must be finite"),
        (POINTS, [0, 1, 2, 3], "there are 3 names, and none for label 3"),
        (POINTS, [0, 1, 2, -1], "none for label -1"),
    ],
)
def test_what_is_not_a_map_is_refused(points, labels, message):
    with pytest.raises(ValueError, match=message):
        plots.show_embedding(points, labels, names=["a", "b", "c"])


def test_a_row_of_dots_shows_each_value_and_their_mean():
    rows = {"fair": [0.1, 0.2, 0.6], "confounded": [0.9]}
    axis = plots.show_dots(rows, level=0.25, title="mass", label="three seeds")
    rings, mean, alone, chance = axis.lines
    assert rings.get_xdata() == pytest.approx([0.1, 0.2, 0.6])
    assert rings.get_markerfacecolor() == "none"
    assert [*mean.get_xdata(), *alone.get_xdata()] == pytest.approx([0.3, 0.9])
    assert (*rings.get_ydata(), *mean.get_ydata(), *alone.get_ydata()) == (0, 0, 0, 0, 1)
    assert chance.get_xdata() == [0.25, 0.25]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == list(rows)
    low, high = axis.get_ylim()
    assert low > high  # the first row stands at the top
    assert axis.get_legend_handles_labels()[1] == ["three seeds"]


def test_intervals_of_dots_take_the_place_of_the_values_and_series_stand_below_each_other():
    axis = plots.show_dots({"a": [1.0, 5.0], "b": [2.0]}, interval=lambda v: (v.min(), v.max()))
    plots.show_dots({"a": [3.0], "b": [4.0]}, ax=axis, shift=0.2, color="red", marker="s")
    spans = [part.get_segments()[0][:, 0].tolist() for part in axis.collections]
    assert spans == [[1, 5], [2, 2]]
    assert [line.get_xdata()[0] for line in axis.lines] == [3, 2, 3, 4]
    assert [line.get_ydata()[0] for line in axis.lines] == pytest.approx([0, 1, 0.2, 1.2])
    assert axis.lines[-1].get_color() == "red"


def test_no_dots_are_an_error():
    with pytest.raises(ValueError, match="no rows"):
        plots.show_dots({})
