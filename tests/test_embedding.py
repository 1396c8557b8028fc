"""Layer outputs are those of the layers; maps and neighbours are what they are defined to be."""

import gc
import os
import re
import sys
import warnings
import weakref
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from course_utils import inspection, models
from course_utils._scores import forward
from course_utils.embedding import _up_to, layer_outputs, neighbour_purity, project


@pytest.fixture(autouse=True)
def _same_weights_each_run():
    keras.utils.set_random_seed(0)


def images(n=7, shape=(8, 10, 1)):
    return np.random.default_rng(0).random((n, *shape), np.float32)


def chain():
    return keras.Sequential(
        [
            keras.Input((8, 10, 1)),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(name="flat"),
            layers.Dense(2, name="scores"),
        ]
    )


# -- Layer outputs -----------------------------------------------------------------------------


def test_outputs_equal_those_of_a_submodel_built_by_hand():
    model, x = models.load_trained("speech"), images(5, (32, 96, 1))
    names = ["relu_1", "relu_4", "relu_8"]
    by_hand = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    found = layer_outputs(model, x, names, batch_size=2)
    assert list(found) == names
    for name, expected in zip(names, by_hand(x, training=False), strict=True):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected, atol=1e-5)


def test_layers_go_by_name_index_or_themselves():
    model, x = chain(), images()
    norm = model.get_layer("norm")
    found = layer_outputs(model, x, ["norm", 1, -3, norm])
    assert list(found) == ["norm", 1, -3, norm]
    for outputs in found.values():
        np.testing.assert_array_equal(outputs, found["norm"])


def test_a_later_batch_has_the_outputs_it_would_have_alone():
    model, x = chain(), images(7)
    whole = layer_outputs(model, x, ["flat"], batch_size=7)["flat"]
    assert np.ptp(whole, axis=0).max() > 0.1  # no two images are alike
    threes = layer_outputs(model, x, ["flat"], batch_size=3)["flat"]
    np.testing.assert_allclose(threes, whole, atol=1e-5)
    last = layer_outputs(model, x[5:], ["flat"])["flat"]
    np.testing.assert_allclose(last, whole[5:], atol=1e-5)


@pytest.mark.parametrize("axes", [2, (2,), (1, 2), [1, 3]])
def test_averages_are_those_of_numpy(axes):
    model, x = chain(), images()
    whole = layer_outputs(model, x, ["conv"])["conv"]
    expected = whole.mean(axis=tuple(axes) if isinstance(axes, list) else axes)
    found = layer_outputs(model, x, ["conv"], mean_over=axes, batch_size=3)["conv"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def inner_functional():
    inputs = keras.Input((8, 10, 1))
    x = layers.Conv2D(2, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, layers.ReLU(name="relu")(x), name="inner")


def inner_sequential():
    parts = [layers.Conv2D(2, 3, name="conv"), layers.BatchNormalization(name="norm")]
    return keras.Sequential([*parts, layers.ReLU(name="relu")], name="inner")  # not built yet


def inner_nested():
    return keras.Sequential([inner_functional(), layers.ReLU(name="last")], name="middle")


@pytest.mark.parametrize("make", [inner_functional, inner_sequential, inner_nested])
def test_layers_of_nested_models_put_out_what_they_do_within_the_whole(make):
    inputs, inner = keras.Input((8, 10, 1)), make()
    # Something stands before the nested model, or its own inputs would do.
    tensor = inner(layers.Rescaling(2.0, offset=-0.5, name="rescale")(inputs))
    model = keras.Model(inputs, layers.Flatten(name="flat")(tensor))
    while inner.name == "middle":
        inner = inner.layers[0]
    norm = inner.get_layer("norm")
    norm.set_weights(np.random.default_rng(0).uniform(0.5, 2, (4, 2)).astype(np.float32))
    path = "middle/inner/norm" if make is inner_nested else "inner/norm"
    x = images()
    expected = norm(inner.get_layer("conv")(2 * x - 0.5), training=False)
    found = layer_outputs(model, x, [path, "norm", norm, "flat"], batch_size=3)
    for layer in (path, "norm", norm):
        np.testing.assert_allclose(found[layer], expected, atol=1e-5)
    np.testing.assert_allclose(found["flat"], model(x), atol=1e-5)
    # What the package shows of feature maps follows.
    np.testing.assert_allclose(inspection.feature_maps(model, x, path), expected, atol=1e-5)


def test_a_nested_model_with_two_inputs_gets_both():
    a, b = keras.Input((8, 10, 1)), keras.Input((8, 10, 1))
    inner = keras.Model([a, b], layers.ReLU()(layers.Subtract(name="minus")([a, b])), name="inner")
    inputs = keras.Input((8, 10, 1))
    model = keras.Model(inputs, inner([layers.Rescaling(3.0)(inputs), inputs]))
    x = images()
    found = layer_outputs(model, x, ["inner/minus"])["inner/minus"]
    np.testing.assert_allclose(found, 2 * x, atol=1e-6)


def test_the_outermost_of_equal_names_counts_and_equal_depths_need_a_path():
    inputs = keras.Input((8, 10, 1))
    conv = layers.Conv2D(1, 3, padding="same", name="conv")
    model = keras.Model(inputs, inner_functional()(conv(inputs)))
    found = layer_outputs(model, images(), ["conv"])["conv"]
    np.testing.assert_allclose(found, conv(images()), atol=1e-6)
    twins = [keras.Sequential([layers.ReLU(name="relu")], name=name) for name in "ab"]
    model = keras.Model(inputs, layers.Add()([twin(inputs) for twin in twins]))
    with pytest.raises(ValueError, match="several layers 'relu': a/relu, b/relu"):
        layer_outputs(model, images(), ["relu"])
    assert layer_outputs(model, images(), ["b/relu"])["b/relu"].shape == (7, 8, 10, 1)


def test_a_model_is_compiled_once_for_the_same_layers_and_anew_when_it_grows():
    model = chain()
    for n in (2, 5, 7):
        layer_outputs(model, images(n), ["conv", "norm"], batch_size=3)
    part = _up_to(model, [0, 1])
    assert part is _up_to(model, ["conv", "norm"])
    assert forward(part).experimental_get_tracing_count() == 1
    assert part is not _up_to(model, ["norm", "conv"])
    model.pop()
    model.add(layers.Dense(3, name="more"))
    assert layer_outputs(model, images(), ["more"])["more"].shape == (7, 3)


def test_new_weights_give_new_outputs():
    model, x = chain(), images()
    before = layer_outputs(model, x, ["conv"])["conv"]
    model.get_layer("conv").set_weights([2 * w for w in model.get_layer("conv").get_weights()])
    after = layer_outputs(model, x, ["conv"])["conv"]
    np.testing.assert_allclose(after, 2 * before, atol=1e-6)


def test_models_are_not_kept_alive():
    model = chain()
    layer_outputs(model, images(), ["conv"])
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


CLEAR = Path("/proc/self/clear_refs")


def peak():
    """The most megabytes that this process has had."""
    return int(re.search("VmHWM:(.*) kB", Path("/proc/self/status").read_text())[1]) / 1e3


# The outputs of 2,000 images would take 2.1 GB, those of one batch 17 MB.
@pytest.mark.skipif(not os.access(CLEAR, os.W_OK), reason="asks Linux for the peak of its memory")
def test_memory_is_that_of_a_batch():
    convolution = layers.Conv2D(64, 1, name="conv")
    pool = layers.GlobalAveragePooling2D(name="pool")
    model = keras.Sequential([keras.Input((64, 64, 1)), convolution, pool])
    x = np.ones((2000, 64, 64, 1), np.float32)
    layer_outputs(model, x[:16], ["conv"], mean_over=(1, 2), batch_size=16)
    CLEAR.write_text("5")  # from now on
    before = peak()
    layer_outputs(model, x, ["conv"], mean_over=(1, 2), batch_size=16)
    assert peak() - before < 500


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((images(), ["cnov"]), {}, "no layer 'cnov'. It has 0: conv, 1: norm, 2: flat, 3: scores"),
        ((images(), [4]), {}, "no layer 4"),
        ((images(), [layers.ReLU()]), {}, "no layer <ReLU"),
        ((images(), "conv"), {}, r"list of layers, such as \['conv_1'\], got 'conv'"),
        ((images(), []), {}, "list of layers"),
        ((images(shape=(8, 9, 1)), ["conv"]), {}, r"images of shape \(8, 10, 1\), got \(8, 9, 1\)"),
        ((images() * np.nan, ["conv"]), {}, "holds NaN"),
        ((images(), ["conv"]), {"batch_size": 0}, "batch_size must be a whole number from 1"),
        ((images(), ["conv"]), {"mean_over": 0}, r"axes from 1 to 3 .* \(N, 6, 8, 3\), got 0"),
        ((images(), ["conv", "flat"]), {"mean_over": 2}, r"1 to 1 .* 'flat', \(N, 144\), got 2"),
    ],
)
def test_layers_and_inputs_that_do_not_fit_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        layer_outputs(chain(), *arguments, **options)


def test_the_layers_of_nested_models_are_listed():
    inputs = keras.Input((8, 10, 1))
    model = keras.Model(inputs, inner_functional()(inputs))
    with pytest.raises(ValueError, match=r"1: inner, and within nested models .*inner/conv, inner"):
        layer_outputs(model, images(), ["inner/cnov"])


# -- Maps --------------------------------------------------------------------------------------


def blobs(n=20, groups=3, dimensions=6, apart=30.0, seed=0):
    """Far groups of points, one after the other, and which group each belongs to."""
    rng = np.random.default_rng(seed)
    centres = apart * rng.normal(size=(groups, dimensions))
    labels = np.repeat(np.arange(groups), n)
    return centres[labels] + rng.normal(size=(groups * n, dimensions)), labels


FEATURES = (
    st.integers(5, 12)
    .flatmap(lambda n: arrays(np.float64, (n, 4), elements=st.integers(-50, 50).map(float)))
    .filter(lambda f: np.linalg.matrix_rank(f - f.mean(0)) >= 2)
)


@given(FEATURES)
def test_pca_gives_the_directions_of_largest_variance(features):
    found = project(features)
    centred = features - features.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(features.T))
    for axis in (0, 1):
        assert found[:, axis].mean() == pytest.approx(0, abs=1e-8)
        assert found[:, axis].var(ddof=1) == pytest.approx(variances[-1 - axis], abs=1e-7)
    # Where variances are equal, any direction among them is right.
    if np.diff(variances[-3:]).min() > 1e-3 * variances[-1]:
        for axis in (0, 1):
            by_hand = centred @ directions[:, -1 - axis]
            np.testing.assert_allclose(np.abs(found[:, axis]), np.abs(by_hand), atol=1e-6)


def test_pca_equals_scikit_learn_s_up_to_sign():
    features = np.random.default_rng(0).normal(size=(50, 9)) * np.arange(1, 10)
    theirs = PCA(2, svd_solver="arpack", random_state=0).fit_transform(features)
    ours = project(features)
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-8)
    assert ours.dtype == np.float64


def test_the_signs_of_pca_do_not_depend_on_the_order_of_the_points():
    features, _ = blobs()
    order = np.random.default_rng(1).permutation(len(features))
    ours = project(features)
    np.testing.assert_allclose(project(features[order]), ours[order], atol=1e-8)
    weights = np.linalg.lstsq(features - features.mean(0), ours, rcond=None)[0]
    assert (weights[np.abs(weights).argmax(axis=0), [0, 1]] > 0).all()


# UMAP is compiled when it is first called, which takes half a minute.
UMAP = pytest.param("umap", marks=pytest.mark.slow)


@pytest.mark.parametrize("method", ["tsne", UMAP])
def test_maps_keep_far_groups_apart_and_the_same_seed_gives_the_same_map(method):
    features, labels = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, again, other = (project(features, method, seed) for seed in (0, 0, 1))
    assert first.shape == (60, 2)
    assert first.dtype == np.float64
    np.testing.assert_array_equal(first, again)
    # t-SNE starts from the map of PCA, so that little is left to chance.
    assert (np.abs(first - other).max() > 1e-3) == (method == "umap")
    assert neighbour_purity(first, labels).mean() == 1


@pytest.mark.parametrize("method", ["tsne", UMAP])
def test_maps_change_with_the_number_of_neighbours(method):
    features, _ = blobs()
    option = {"tsne": "perplexity", "umap": "n_neighbors"}[method]
    few, many = (project(features, method, **{option: n}) for n in (3, 30))
    assert np.abs(few - many).max() > 1e-3


@pytest.mark.parametrize("method", ["pca", "tsne", UMAP])
def test_features_are_left_as_they_are(method):
    features, _ = blobs()
    kept = features.copy()
    project(features, method)
    np.testing.assert_array_equal(features, kept)


@pytest.mark.parametrize("outcome", [nullcontext(), pytest.raises(RuntimeError, match="no map")])
def test_umap_does_not_compile_its_sort_and_is_afterwards_as_it_was(outcome, monkeypatch):
    from umap import UMAP, umap_, utils  # takes seconds

    sorts = []

    def fit(reducer, features):
        sorts.append(umap_.fast_knn_indices)
        if not isinstance(outcome, nullcontext):
            raise RuntimeError("no map")
        return features[:, :2]

    monkeypatch.setattr(UMAP, "fit_transform", fit)
    before = dict(vars(umap_))
    with outcome:
        project(blobs()[0], "umap")
    assert sorts == [utils.fast_knn_indices.py_func]
    assert dict(vars(umap_)) == before


def test_without_umap_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match="needs the package umap-learn: pip install umap-learn"):
        project(blobs()[0], "umap")


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.ones((6, 3)), {}, "all features are the same"),
        (np.eye(6)[:, :1], {}, r"5 points with 2 features each, got \(6, 1\)"),
        (np.eye(4), {}, r"at least 5 points .* got \(4, 4\)"),
        (np.ones((6, 3, 2)), {}, r"got float64 \(6, 3, 2\).*reshape\(len\(features\), -1\)"),
        (np.full((6, 3), "a"), {}, r"must be numbers of shape \(N, D\)"),
        (np.diag([1, np.inf, 1, 1, 1]), {}, r"row 1 holds NaN or infinity \(1 of 5"),
        (np.eye(6), {"method": "isomap"}, '"pca", "tsne" or "umap", got \'isomap\''),
        (np.eye(6), {"method": "tsne"}, "less than the number of points, 6, got 30"),
        (np.eye(6), {"method": "tsne", "perplexity": 0.5}, "at least 1"),
        (np.eye(6), {"method": "tsne", "perplexity": np.nan}, "at least 1"),
        (np.eye(6), {"method": "umap"}, "6 points have fewer than 15 neighbours"),
        (np.eye(6), {"method": "umap", "n_neighbors": 1}, "n_neighbors must be a whole number"),
        (np.eye(6), {"perplexity": 3}, 'perplexity is an option of "tsne", not of "pca"'),
        (np.eye(6), {"method": "tsne", "n_neighbors": 3}, 'option of "umap", not of "tsne"'),
        (np.eye(6), {"seed": -1}, "seed must be a whole number from 0"),
    ],
)
def test_what_cannot_be_projected_is_refused(features, options, message):
    with pytest.raises(ValueError, match=message):
        project(features, **options)


# -- Neighbours --------------------------------------------------------------------------------

# On a line: 0 1 2 . . 5 6 . . . . . . . 14
LINE = np.array([[0.0], [1.0], [2.0], [5.0], [6.0], [14.0]])


@pytest.mark.parametrize(
    ("labels", "k", "expected"),
    [
        ("aaabbb", 1, [1, 1, 1, 1, 1, 1]),
        ("ababab", 1, [0, 0, 0, 0, 0, 0]),
        ("aabbba", 1, [1, 0.5, 0, 1, 1, 0]),  # the second has two neighbours equally near
        ("aabbba", 2, [0.5, 0.5, 0, 1, 1, 0]),
        ("aaabbb", 5, [0.4] * 6),
    ],
)
def test_neighbours_on_a_line_are_counted_as_by_hand(labels, k, expected):
    found = neighbour_purity(LINE, list(labels), k=k)
    np.testing.assert_allclose(found, expected)
    assert found.dtype == np.float64


def test_the_same_speaker_s_other_take_does_not_count_across_speakers():
    # Two speakers at 0 and 10 say two sentences, each twice, all but the same each time.
    speaker = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    sentence = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    take = np.tile([0.0, 0.01], 4)
    features = np.stack([10.0 * speaker, 0.1 * sentence + take], axis=1)
    assert neighbour_purity(features, sentence).mean() == 1
    assert neighbour_purity(features, speaker).mean() == 1
    # The second speaker's sentences lie in the same order: across speakers each finds its own.
    assert neighbour_purity(features, sentence, across=speaker).mean() == 1
    swapped = features.copy()
    swapped[4:, 1] = features[4:, 1][[2, 3, 0, 1]]
    assert neighbour_purity(swapped, sentence, across=speaker).mean() == 0
    assert neighbour_purity(swapped, sentence).mean() == 1, "which is why across is needed"
    assert neighbour_purity(swapped, speaker, across=sentence).mean() == 1


def test_it_agrees_with_scikit_learn_on_the_nearest_neighbour():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(600, 5)), rng.integers(0, 3, 600)
    found = neighbour_purity(features, labels, k=4)
    others = KNeighborsClassifier(5).fit(features, labels).kneighbors(return_distance=False)
    expected = (labels[others[:, :4]] == labels[:, np.newaxis]).mean(axis=1)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("k", [1, 7])
def test_features_that_know_nothing_score_chance(k):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 300)
    score = neighbour_purity(rng.normal(size=(1200, 3)), labels, k=k).mean()
    assert score == pytest.approx(299 / 1199, abs=0.03)


@given(
    arrays(np.float64, (8, 2), elements=st.integers(-3, 3).map(float)).filter(
        lambda f: (f != f[0]).any()
    ),
    st.lists(st.integers(0, 2), min_size=8, max_size=8).map(np.array),
    st.permutations(range(8)),
    st.integers(1, 7),
)
def test_the_order_the_scale_and_the_place_of_the_points_do_not_matter(features, labels, order, k):
    purity = neighbour_purity(features, labels, k=k)
    assert ((purity >= 0) & (purity <= 1)).all()
    np.testing.assert_allclose(neighbour_purity(features[order], labels[order], k=k), purity[order])
    np.testing.assert_allclose(neighbour_purity(4 * features + 8, labels, k=k), purity)
    if k == 7:
        same = (labels[:, np.newaxis] == labels).sum(axis=1) - 1
        np.testing.assert_allclose(purity, same / 7)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.ones((6, 2)), {}, "all features are the same"),
        (np.full((6, 2), np.nan), {}, r"row 0 holds NaN or infinity \(6 of 6"),
        (np.zeros((2, 3, 3)), {}, r"shape \(N, D\), got float64 \(2, 3, 3\)"),
        (LINE[:5], {}, r"labels must be one for each of 5 points, got \(6,\)"),
        (LINE, {"k": 6}, "k = 6 neighbours were asked for, but point 0 has 5"),
        (LINE, {"k": 0}, "k must be a whole number from 1"),
        (LINE, {"across": [0, 1]}, r"across must be one for each of 6 points, got \(2,\)"),
        (LINE, {"across": [0, 1, 1, 1, 1, 1], "k": 2}, "k = 2 .* but point 1 has 1"),
        (LINE, {"across": np.zeros(6)}, "point 0 has 0"),
    ],
)
def test_points_without_enough_neighbours_are_refused(features, options, message):
    with pytest.raises(ValueError, match=message):
        neighbour_purity(features, list("aaabbb"), **options)
