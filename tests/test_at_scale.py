"""at_scale: the whole is what its images are one by one, whatever stops it on the way."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask.array
import keras
import numpy as np
import pytest
import zarr
from networks import random_network
from PIL import Image
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from course_utils import _store, at_scale, gradients, models, photo
from course_utils.at_scale import cluster_maps, explain_dataset

ROOT = Path(__file__).resolve().parents[1]
IMAGES = np.random.default_rng(0).random((11, 8, 8, 2), np.float32)


def network(seed=0, last="softmax", units=3):
    ones = keras.initializers.RandomNormal(seed=seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(3, 3, activation="relu", kernel_initializer=ones),
            keras.layers.Flatten(),
            keras.layers.Dense(units, activation=last, kernel_initializer=ones),
        ]
    )


MODEL = network()
EXPLAINED = []  # how many images each call got


def counted(model, images, targets, *, factor=1.0):
    EXPLAINED.append(len(images))
    return factor * images.sum(axis=-1) * (1 + np.asarray(targets))[:, None, None]


def settled(store):
    """Which chunks are finished."""
    return store["digests"][:].any(axis=1)


@pytest.fixture(autouse=True)
def _none_explained():
    EXPLAINED.clear()


@pytest.mark.parametrize("chunk", [1, 4, 11, 256])
@pytest.mark.parametrize("targets", [None, 1, np.arange(11) % 3])
def test_it_is_the_explanation_of_all_the_scores_and_the_targets(tmp_path, chunk, targets):
    store = explain_dataset(counted, MODEL, IMAGES, tmp_path / "x", targets=targets, chunk=chunk)
    scores = np.asarray(MODEL(IMAGES))
    np.testing.assert_allclose(store["scores"][:], scores, atol=1e-6)
    asked = scores.argmax(axis=1) if targets is None else np.broadcast_to(targets, 11)
    np.testing.assert_array_equal(store["targets"][:], asked)
    expected = IMAGES.sum(axis=-1) * (1 + asked)[:, None, None]
    np.testing.assert_allclose(store["heatmaps"][:], expected, rtol=1e-6)
    assert store["heatmaps"].dtype == np.float32
    assert [chunk] * (11 // chunk) + [11 % chunk] * (11 % chunk > 0) == EXPLAINED


@pytest.mark.parametrize("last", ["sigmoid", None])
def test_one_output_is_asked_for_the_likelier_of_its_two_classes(tmp_path, last):
    model = network(last="sigmoid", units=1)
    logits = np.asarray(models.logit_model(model)(IMAGES))[:, 0]
    # So that some logits lie between the boundaries of the two ways to say a class, 0 and 0.5.
    kernel, bias = model.layers[-1].get_weights()
    scale = 0.8 / np.ptp(logits)
    changed = [kernel * scale, bias - scale * np.median(logits) + 0.1]
    model = network(last=last, units=1)
    model.layers[-1].set_weights(changed)
    expected = scale * (logits - np.median(logits)) + 0.1 > 0
    store = explain_dataset(counted, model, IMAGES, tmp_path / "x", chunk=3)
    assert store["scores"].shape == (11, 1)
    np.testing.assert_array_equal(store["targets"][:], expected)
    assert 0 < expected.sum() < 11
    assert ((store["scores"][:, 0] > 0.5) != expected).any() == (last is None)


def test_one_output_that_cannot_be_looked_into_needs_targets(tmp_path):
    model = keras.Sequential([network(last=None, units=1), keras.layers.Lambda(keras.ops.sigmoid)])
    with pytest.raises(ValueError, match=r"a probability or a logit.*pass targets"):
        explain_dataset(counted, model, IMAGES, tmp_path / "x")
    store = explain_dataset(counted, model, IMAGES, tmp_path / "x", targets=1)
    assert settled(store).all()


def test_every_kind_of_array_gives_the_same(tmp_path):
    plain = explain_dataset(gradients.saliency_map, MODEL, IMAGES, tmp_path / "plain", chunk=4)
    np.save(tmp_path / "images.npy", IMAGES)
    kinds = {
        "mapped": np.load(tmp_path / "images.npy", mmap_mode="r"),
        "zarr": zarr.create_array(tmp_path / "images.zarr", data=IMAGES),
        "dask": dask.array.from_array(IMAGES, chunks=(3, 8, 8, 2)),
    }
    for kind, images in kinds.items():
        store = explain_dataset(gradients.saliency_map, MODEL, images, tmp_path / kind, chunk=4)
        for name in ("heatmaps", "scores", "targets", "digests"):
            np.testing.assert_array_equal(store[name][:], plain[name][:], err_msg=f"{kind} {name}")


def test_a_folder_of_pictures_goes_by_their_names(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    model = models.squares_cnn()
    greys = {"b.png": 51, "a.jpg": 204, "c.webp": 102}
    for name, grey in greys.items():
        Image.new("RGB", (90, 70), (grey,) * 3).save(folder / name, quality=100)
    (folder / "notes.txt").write_text("no picture")

    def mean(model, images, targets):
        assert images.shape[1:] == (64, 64, 3)
        return images.mean(axis=-1)

    store = explain_dataset(mean, model, folder, tmp_path / "x", chunk=2)
    shades = store["heatmaps"][:].mean(axis=(1, 2)) * 255
    np.testing.assert_allclose(shades, [204, 51, 102], atol=2)
    Image.new("RGB", (90, 70)).save(folder / "a.jpg")
    with pytest.raises(ValueError, match="explanations of other images: those from 0 on differ"):
        explain_dataset(mean, model, folder, tmp_path / "x", chunk=2)


def of_size(rows, columns, data_format="channels_last"):
    """A network that takes photos of a size."""
    first = data_format == "channels_first"
    options = {"data_format": data_format}
    return keras.Sequential(
        [
            keras.Input((3, rows, columns) if first else (rows, columns, 3)),
            keras.layers.Conv2D(2, 3, **options),
            keras.layers.GlobalAveragePooling2D(**options),
            keras.layers.Dense(2),
        ]
    )


def a_picture(folder):
    """A folder with one picture: 20 × 16 pixels, whose middle square is 16 × 16."""
    folder.mkdir()
    pixels = np.random.default_rng(2).integers(0, 256, (16, 20, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    return folder, np.float32(pixels[np.newaxis, :, 2:18]) / 255


@pytest.mark.parametrize("first", [True, False])
def test_a_folder_is_prepared_for_channels_first_as_well(tmp_path, first):
    folder, square = a_picture(tmp_path / "pictures")
    model = of_size(16, 16, "channels_first" if first else "channels_last")
    given = []

    def keep(model, images, targets):
        given.append(images)
        return images.sum(axis=1 if first else -1)

    store = explain_dataset(keep, model, folder, tmp_path / "x", targets=0)
    np.testing.assert_array_equal(given[0], np.moveaxis(square, -1, 1) if first else square)
    np.testing.assert_allclose(store["heatmaps"][:], square.sum(axis=-1), rtol=1e-6)


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("size", "words"), [((None, None), "any × any"), ((8, None), "8 × any"), ((8, 6), "8 × 6")]
)
def test_a_folder_for_a_network_of_no_square_is_refused(tmp_path, data_format, size, words):
    folder, _ = a_picture(tmp_path / "pictures")
    with pytest.raises(ValueError, match=f"cut to squares .* takes {words} pixels"):
        explain_dataset(counted, of_size(*size, data_format), folder, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    vectors = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="takes 8 pixels"):
        explain_dataset(counted, vectors, folder, tmp_path / "x")


def test_a_classifier_prepares_the_pictures_of_a_folder_itself(tmp_path):
    def red(photos):
        return np.asarray(photos, np.float32)[np.newaxis, :8, :8, :2] - 100

    classifier = models.ImageClassifier(MODEL, red, None, None, None, 8, [], "none")
    Image.new("RGB", (9, 9), (130, 90, 0)).save(tmp_path / "a.png")
    store = explain_dataset(counted, classifier, tmp_path, tmp_path / "x", targets=0)
    np.testing.assert_allclose(store["heatmaps"][:], np.full((1, 8, 8), 20))


class Stopped(BaseException):
    """What no code of the package catches, as nothing catches SIGKILL."""


def test_stopped_at_any_write_it_goes_on_and_computes_only_what_is_missing(tmp_path, monkeypatch):
    put = zarr.storage._local._put
    expected = explain_dataset(counted, MODEL, IMAGES, tmp_path / "whole", chunk=2)
    writes = 6 * 4  # chunks, and arrays to write for each
    for stop in range(writes):
        written = []

        def failing(path, *args, stop=stop, written=written, **kwargs):
            if "/c/" in path.as_posix():
                written.append(path)
                if len(written) > stop:
                    raise Stopped
            return put(path, *args, **kwargs)

        out = tmp_path / f"stopped_{stop}"
        monkeypatch.setattr(zarr.storage._local, "_put", failing)
        with pytest.raises(Stopped):
            explain_dataset(counted, MODEL, IMAGES, out, chunk=2)
        monkeypatch.setattr(zarr.storage._local, "_put", put)
        done = settled(zarr.open_group(out, mode="r"))
        assert done.sum() == stop // 4
        EXPLAINED.clear()
        store = explain_dataset(counted, MODEL, IMAGES, out, chunk=2)
        assert len(EXPLAINED) == 6 - stop // 4
        np.testing.assert_array_equal(store["heatmaps"][:], expected["heatmaps"][:])
        np.testing.assert_array_equal(store["scores"][:], expected["scores"][:])
    EXPLAINED.clear()
    explain_dataset(counted, MODEL, IMAGES, tmp_path / "whole", chunk=2)
    assert EXPLAINED == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": network(seed=1)}, "weights_sha256"),
        ({"model": network(last="sigmoid")}, "Dense softmax.*Dense sigmoid"),
        ({"factor": 2.0}, "they have options.*1.5.* and this call has options.*2.0"),
        ({"chunk": 5}, "they have chunk 4, and this call has chunk 5"),
        ({"targets": 2}, "targets_given"),
        ({"images": IMAGES[:9]}, "images 11, and this call has images 9"),
        ({"images": IMAGES[::-1]}, "other images: those from 0 on differ"),
        ({"explain": lambda *args, factor: counted(*args)}, "explain .*counted.*lambda"),
    ],
)
def test_what_was_made_otherwise_is_refused_and_kept(tmp_path, change, message):
    given = {"explain": counted, "model": MODEL, "images": IMAGES, "chunk": 4, "factor": 1.5}
    store = explain_dataset(out=tmp_path / "x", **given)
    before = store["heatmaps"][:]
    with pytest.raises(ValueError, match=message):
        explain_dataset(out=tmp_path / "x", **given | change)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "x")["heatmaps"][:], before)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (keras.layers.Rescaling(1 / 255), keras.layers.Rescaling(1 / 127.5, -1)),
        (keras.layers.LeakyReLU(0.2), keras.layers.LeakyReLU(0.3)),
        (keras.layers.MaxPooling2D(2, 1, "same"), keras.layers.MaxPooling2D(3, 1, "same")),
        (keras.layers.Lambda(lambda x: x + x), keras.layers.Lambda(lambda x: x * x)),
        (lambda x: x * 1.5, lambda x: x * 2),
        (lambda x: x[..., ::1], lambda x: x[..., ::-1]),
        (lambda x: x + keras.ops.relu(x), lambda x: keras.ops.relu(x) + keras.ops.relu(x)),
        *[[keras.Sequential([keras.Input((8, 8, 2)), keras.layers.ReLU(n)]) for n in (6, 7)]],
    ],
)
def test_a_network_of_the_same_weights_that_computes_something_else_is_refused(tmp_path, was, now):
    """Somebody mends the scale of the images, and calls again."""
    networks = []
    for begin in (was, was, now):
        inputs = keras.Input((8, 8, 2))
        networks.append(keras.Model(inputs, MODEL(begin(inputs))))
    first, again, other = networks
    explain_dataset(counted, first, IMAGES, tmp_path / "x")
    explain_dataset(counted, again, IMAGES, tmp_path / "x")
    with pytest.raises(ValueError, match=r"explanations of another kind.*graph_sha256"):
        explain_dataset(counted, other, IMAGES, tmp_path / "x")
    assert _store.recorded({"judge": first}) == _store.recorded({"judge": again})
    assert _store.recorded({"judge": first}) != _store.recorded({"judge": other})


@pytest.mark.parametrize("seed", range(12))
def test_a_network_that_was_saved_and_loaded_is_the_same(tmp_path, seed):
    model = random_network(seed).model
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", compile=False)
    assert _store.graph_sha256(loaded) == _store.graph_sha256(model)


class Silent(keras.layers.Layer):
    """It has not said what its settings are, and knows the network that it belongs to."""

    def __init__(self, factor, other):
        super().__init__()
        self.factor, self.other = factor, other

    def call(self, x):
        return self.factor * x


def test_a_layer_of_one_s_own_may_know_anything():
    found = []
    for factor in (2.0, 2.0, 3.0):
        layer = Silent(factor, other=object())
        model = keras.Sequential([keras.Input((8, 8, 2)), layer, MODEL])
        vars(layer)["network"] = model
        found.append(_store.graph_sha256(model))
    assert found[0] == found[1]
    assert found[0] != found[2]


def with_activation(function):
    conv = keras.layers.Conv2D(2, 3, activation=function)
    return _store.graph_sha256(keras.Sequential([keras.Input((8, 8, 2)), conv, MODEL.layers[1]]))


def test_an_activation_of_one_s_own_counts_and_not_where_it_stands():
    """In a notebook, the file that a cell is said to stand in is another in every session."""

    def cell(file, source, name="activation"):
        names = {"__name__": "__main__"}
        exec(compile(source, file, "exec"), names)
        return names[name]

    twice, thrice = (f"activation = lambda x: {n} * x" for n in (2.0, 3.0))
    named = "def activation(x):\n    return {} * x"
    sums = [
        with_activation(cell("ipykernel_1/1.py", twice)),
        with_activation(cell("ipykernel_2/7.py", "\n\n" + twice)),
        with_activation(cell("ipykernel_1/1.py", thrice)),
        *(with_activation(cell("ipykernel_1/1.py", named.format(n))) for n in (2.0, 3.0)),
        *(
            with_activation(functools.partial(keras.ops.leaky_relu, negative_slope=n))
            for n in (0.1, 0.2)
        ),
        *(with_activation(Silent(factor, object())) for factor in (2.0, 3.0)),
        with_activation("relu"),
        with_activation("tanh"),
    ]
    assert sums[0] == sums[1]
    assert len(set(sums)) == len(sums) - 1


def test_a_layer_in_a_wrapper_has_a_name_that_does_not_count():
    def wrapped(units, seed):
        keras.utils.set_random_seed(seed)
        inner = keras.layers.TimeDistributed(keras.layers.Dense(units))
        return _store.graph_sha256(keras.Sequential([keras.Input((8, 2)), inner]))

    assert wrapped(3, 0) == wrapped(3, 1)
    assert wrapped(3, 0) != wrapped(4, 0)


def test_a_network_s_names_do_not_count():
    assert _store.graph_sha256(network()) == _store.graph_sha256(network(seed=1))
    assert _store.graph_sha256(network()) != _store.graph_sha256(network(last="sigmoid"))


def test_a_run_notices_that_another_began_the_folder_anew(tmp_path):
    folder = str(tmp_path / "x")

    def meddling(model, images, targets):
        if not EXPLAINED:
            shutil.rmtree(folder)
            explain_dataset(counted, MODEL, IMAGES, folder, factor=2.0)
        return counted(model, images, targets)

    with pytest.raises(ValueError, match="begun anew by another call while this one ran"):
        explain_dataset(meddling, MODEL, IMAGES, tmp_path / "x")
    kept = zarr.open_group(tmp_path / "x")
    assert settled(kept).all()
    assert kept.attrs["options"] == {"factor": 2.0}


def test_what_was_computed_from_a_memory_map_is_no_file(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    images = np.load(tmp_path / "images.npy", mmap_mode="r").astype(np.float32)
    assert isinstance(images, np.memmap)
    store = explain_dataset(counted, MODEL, images, tmp_path / "x", chunk=np.int64(4))
    expected = explain_dataset(counted, MODEL, IMAGES, tmp_path / "y", chunk=4)
    np.testing.assert_array_equal(store["heatmaps"][:], expected["heatmaps"][:])


def test_a_link_to_an_empty_folder_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")
    store = explain_dataset(counted, MODEL, IMAGES, tmp_path / "x")
    assert settled(store).all()
    assert (tmp_path / "x").is_symlink()
    assert settled(zarr.open_group(tmp_path / "elsewhere")).all()


def test_two_functions_of_one_name_are_told_apart(tmp_path):
    def explanation(power):
        return lambda model, images, targets: images.sum(axis=-1) ** power

    explain_dataset(explanation(1), MODEL, IMAGES, tmp_path / "x")
    explain_dataset(explanation(1), MODEL, IMAGES, tmp_path / "x")
    with pytest.raises(ValueError, match="explanations of another kind"):
        explain_dataset(explanation(2), MODEL, IMAGES, tmp_path / "x")


def otherwise(source, **names):
    """The function `explain` of a module of its own, which has these names."""
    names["__name__"] = "a_script"
    exec(source, names)
    return names["explain"]


KEYWORD = "def explain(model, images, targets, *, power={}): return images.sum(axis=-1) ** power"
READS = "def explain(model, images, targets): return images.sum(axis=-1) * POWER"
WITHIN = "def explain(model, images, targets): return [i.sum(axis=-1) * POWER for i in images]"
DEEPER = "def explain(model, images, targets): return (lambda: images.sum(axis=-1) * POWER)()"
ARRAY = "def explain(model, images, targets): return images @ POWER"
TUPLE = "def explain(model, images, targets): return images.sum(axis=-1) * POWER[1]"
LAST = "def explain(model, images, targets): return POWER(images)[:, :1, None] * images[..., 0]"
NOT_THE_SAME = {
    "default of a keyword": [otherwise(KEYWORD.format(power)) for power in (1, 2)],
    **{
        what: [otherwise(source, POWER=power) for power in powers]
        for what, source, powers in (
            ("number of the module", READS, (1, 2)),
            ("number that is a numpy scalar", READS, (np.float32(1), np.float32(2))),
            ("read in a comprehension", WITHIN, (1, 2)),
            ("read in a lambda", DEEPER, (1, 2)),
            ("array of the module", ARRAY, (np.ones(2), np.arange(2.0))),
            ("tuple of the module", TUPLE, ((0, 1), (0, 2))),
            ("network of the module", LAST, (network(), network(seed=1))),
        )
    },
    "a lambda of the course": [photo.METHODS["SmoothGrad"], photo.METHODS["occlusion"]],
    "layer": [functools.partial(counted, layer=keras.layers.ReLU(name=n)) for n in ("a", "b")],
}


@pytest.mark.parametrize("what", NOT_THE_SAME)
def test_a_function_with_other_settings_is_another(what):
    one, other = NOT_THE_SAME[what]
    assert _store.recorded(one) == _store.recorded(one)
    assert _store.recorded(one) != _store.recorded(other)


def test_the_store_refuses_a_function_that_reads_another_number(tmp_path):
    explain_dataset(otherwise(READS, POWER=1), MODEL, IMAGES, tmp_path / "x")
    explain_dataset(otherwise(READS, POWER=1), MODEL, IMAGES, tmp_path / "x")
    with pytest.raises(ValueError, match="explanations of another kind"):
        explain_dataset(otherwise(READS, POWER=2), MODEL, IMAGES, tmp_path / "x")


def test_what_a_run_notes_down_does_not_make_it_another(tmp_path):
    source = """
def explain(model, images, targets):
    global count
    count += len(images)
    notes.append(count)
    return images.sum(axis=-1)
"""
    notes = []
    explain = otherwise(source, notes=notes, count=0)
    explain_dataset(explain, MODEL, IMAGES, tmp_path / "x", chunk=4)
    explain_dataset(explain, MODEL, IMAGES, tmp_path / "x", chunk=4)
    assert notes == [4, 8, 11]


class Explainer:
    def __init__(self, power):
        self.power = power

    def __call__(self, model, images, targets, **options):
        return images.sum(axis=-1) ** self.power

    explain = __call__


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        (Explainer(1), "Explainer"),
        (Explainer(1).explain, "method"),
        (Explainer, "type"),
        (functools.cache(counted), "_lru_cache_wrapper"),
        ([].append, "builtin_function_or_method"),
    ],
)
def test_what_holds_something_unseen_is_refused_with_what_to_pass(tmp_path, thing, kind):
    for given in ({"explain": thing}, {"explain": counted, "how": thing}):
        with pytest.raises(ValueError, match=rf"kind '{kind}' .* Pass a function, or a functools"):
            explain_dataset(model=MODEL, images=IMAGES, out=tmp_path / "x", **given)
    assert not (tmp_path / "x").exists()


def test_functions_of_numpy_and_of_python_go_by_their_names():
    recorded = [_store.recorded(function) for function in (np.abs, np.max, max)]
    assert recorded == ["numpy.absolute", "numpy.max", "builtins.max"]


def test_two_sessions_agree_on_a_function():
    script = "; ".join(
        [
            "from course_utils import _store",
            "print(_store.recorded(lambda m, x, t: x if t in {'a', 'b', 'c', 'd', 'e'} else -x))",
        ]
    )
    said = set()
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script]
        said.add(subprocess.check_output(command, cwd=ROOT, text=True, env=environment))
    assert len(said) == 1


def test_after_a_mistake_nothing_is_kept_that_a_right_call_would_not_fit(tmp_path):
    with pytest.raises(TypeError, match="facto"):
        explain_dataset(counted, MODEL, IMAGES, tmp_path / "x", facto=2)
    store = explain_dataset(counted, MODEL, IMAGES, tmp_path / "x", factor=2)
    assert settled(store).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk": 0}, "chunk must be a whole number from 1"),
        ({"images": IMAGES[:0]}, "there are no images"),
        ({"images": IMAGES[..., :1]}, "the model takes images of shape"),
        ({"images": "nowhere"}, "there is no folder nowhere"),
        ({"targets": 3}, "target 3 does not exist"),
        ({"targets": np.zeros(5, int)}, "targets must be one class for all 11 images, or 11"),
        ({"model": "lenet"}, "the course has no trained network 'lenet'"),
        ({"model": "lenet.keras"}, "there is no network lenet.keras"),
        (
            {"explain": lambda m, x, t: x},
            r"heatmaps of shape \(11, 8, 8\), got shape \(11, 8, 8, 2",
        ),
        ({"explain": lambda m, x, t: x[..., 0] * np.nan}, "finite heatmaps.*NaN or infinity"),
        ({"what": {1, 2}}, "a set cannot be recorded"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    given = {"explain": counted, "model": MODEL, "images": IMAGES}
    with pytest.raises(ValueError, match=message):
        explain_dataset(out=tmp_path / "x", **given | change)


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/one.txt").write_text("dear")
    zarr.create_group(tmp_path / "group").create_array("a", shape=(2,), dtype="int8")
    for name, message in (("letters", "holds something else"), ("group", "holds something else")):
        with pytest.raises(ValueError, match=message):
            explain_dataset(counted, MODEL, IMAGES, tmp_path / name)
    with pytest.raises(ValueError, match="is a file"):
        explain_dataset(counted, MODEL, IMAGES, tmp_path / "letters/one.txt")
    assert (tmp_path / "letters/one.txt").read_text() == "dear"
    assert "a" in zarr.open_group(tmp_path / "group")


@pytest.mark.parametrize(
    ("number", "words"), [(28, "the disk is full: make room"), (30, "it cannot be written to")]
)
def test_a_disk_that_takes_no_more_is_one_sentence_and_nothing_is_lost(
    tmp_path, monkeypatch, number, words
):
    put, out = zarr.storage._local._put, tmp_path / "x"

    def failing(path, *args, **kwargs):
        if path.parts[-4:] == ("c", "2", "0", "0"):
            raise OSError(number, os.strerror(number))
        return put(path, *args, **kwargs)

    monkeypatch.setattr(zarr.storage._local, "_put", failing)
    with pytest.raises(ValueError, match=f"x: {words}") as caught:
        explain_dataset(counted, MODEL, IMAGES, out, chunk=2)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert settled(zarr.open_group(out)).tolist() == [True, True, False, False, False, False]
    EXPLAINED.clear()
    assert settled(explain_dataset(counted, MODEL, IMAGES, out, chunk=2)).all()
    assert EXPLAINED == [2, 2, 2, 1]


def as_one(tmp_path, images=IMAGES):
    return explain_dataset(gradients.saliency_map, MODEL, images, tmp_path / "one", chunk=2)


def check_equal(store, expected):
    for name in ("heatmaps", "scores", "targets", "digests"):
        np.testing.assert_array_equal(store[name][:], expected[name][:], err_msg=name)


@pytest.fixture
def client(request):
    """A cluster: of threads of this process, or of processes."""
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "dashboard_address": None, "processes": request.param}
    # Workers of this process have its size, and would pause for ever over a limit of their own.
    options["memory_limit"] = None
    with (
        distributed.LocalCluster(n_workers=2, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("client", [False], indirect=True)
def test_workers_give_what_one_process_gives(tmp_path, client):
    expected = as_one(tmp_path)
    kinds = {
        "plain": IMAGES,
        "zarr": zarr.create_array(tmp_path / "images.zarr", data=IMAGES),
        "dask": dask.array.from_array(IMAGES, chunks=(3, 8, 8, 2)),
    }
    options = {"chunk": 2, "client": client}
    for kind, images in kinds.items():
        store = explain_dataset(gradients.saliency_map, MODEL, images, tmp_path / kind, **options)
        check_equal(store, expected)
    loaded = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], MODEL.get_weights()[0])
    with pytest.raises(ValueError, match="finite heatmaps"):
        explain_dataset(lambda m, x, t: x, MODEL, IMAGES, tmp_path / "wrong", **options)


def test_a_worker_that_finds_another_network_says_so(tmp_path):
    MODEL.save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match="has other weights than the one it shall explain"):
        at_scale._loaded(str(tmp_path / "a.keras"), "0" * 64, "")


@pytest.mark.slow
@pytest.mark.parametrize("client", [True], indirect=True)
def test_a_worker_that_is_killed_costs_its_chunk_and_no_more(tmp_path, client):
    images = np.random.default_rng(1).random((200, 8, 8, 2), np.float32)
    expected = as_one(tmp_path, images)
    workers = client.run(os.getpid)
    killed = []

    class Killing(np.ndarray):
        """When its fourth chunk is fetched, a worker dies."""

        def __getitem__(self, at):
            if isinstance(at, slice) and at.start == 40 and not killed:
                killed.append(next(iter(workers.values())))
                os.kill(killed[0], signal.SIGKILL)
            return np.asarray(self)[at]

    out = tmp_path / "many"
    options = {"chunk": 2, "client": client}
    store = explain_dataset(gradients.saliency_map, MODEL, images.view(Killing), out, **options)
    assert killed
    check_equal(store, expected)
    with pytest.raises(ValueError, match="killed every worker that took it"):
        explain_dataset(lambda m, x, t: os._exit(1), MODEL, IMAGES, tmp_path / "k", **options)


# What the next tests start in processes of their own.
SCRIPT = """
import sys, numpy as np, keras
from course_utils import at_scale, gradients
images = np.random.default_rng(0).random((600, 32, 32, 1), np.float32)
keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.Input((32, 32, 1)), keras.layers.Conv2D(2, 3, activation="relu"),
    keras.layers.Flatten(), keras.layers.Dense(3)])
def run(out, count=600):
    return at_scale.explain_dataset(gradients.saliency_map, model, images[:count], out, chunk=2)
"""


def python(script, *arguments, before=()):
    command = [*before, sys.executable, "-c", SCRIPT + script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)


@pytest.mark.slow
def test_killed_at_random_moments_it_is_at_last_what_it_would_have_been(tmp_path):
    out, rng, before = tmp_path / "x", np.random.default_rng(0), 0
    for _ in range(10):
        process = python("print('ready', flush=True); run(sys.argv[1])", out)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 2))
        process.kill()
        process.wait()
        done = settled(zarr.open_group(out, mode="r")).sum() if out.exists() else 0
        assert done >= before  # nothing that was finished is lost
        before = done
    script = "a, b = run(sys.argv[1]), run(sys.argv[2]); " + "; ".join(
        f"assert (a[{name!r}][:] == b[{name!r}][:]).all()"
        for name in ("heatmaps", "scores", "targets", "digests")
    )
    assert python(script, out, tmp_path / "whole").wait() == 0


# A small disk of one's own, which nobody else sees.
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def may_mount():
    if not shutil.which("unshare"):
        return False
    command = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="no disk of one's own: unprivileged namespaces are off")
def test_a_real_disk_that_is_full_and_one_that_is_read_only(tmp_path):
    script = """
import os
from course_utils import at_scale
out = sys.argv[1] + "/x"
def attempt():
    try:
        run(out, 200)
        return "done"
    except ValueError as error:
        return str(error)
def count():
    import zarr
    return int(zarr.open_group(out, mode="r")["digests"][:].any(axis=1).sum())
full = attempt()
first = count()
os.system("mount -o remount,ro " + sys.argv[1])
fixed = attempt()
os.system("mount -o remount,rw,size=20m " + sys.argv[1])
second = count()
print([full, fixed, first, second, attempt(), count()])
"""
    shell = f'mount -t tmpfs -o size=400k none {tmp_path} && exec "$0" "$@"'
    process = python(script, tmp_path, before=[*UNSHARE, "sh", "-c", shell])
    full, fixed, first, second, last, count = eval(process.communicate()[0].splitlines()[-1])
    assert "x: the disk is full: make room, and call again." in full
    assert "x: it cannot be written to: name a folder that can be" in fixed
    assert 0 < first == second < 100
    assert (last, count) == ("done", 100)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as on Linux")
def test_memory_does_not_grow_with_the_data_set(tmp_path):
    script = """
import re
model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
images = np.lib.format.open_memmap(
    sys.argv[1] + "/i.npy", "w+", np.float32, (int(sys.argv[2]), 64, 64, 3))
at_scale.explain_dataset(gradients.saliency_map, model, images, sys.argv[1] + "/x", chunk=100)
print(int(re.search("VmHWM:(.*) kB", open("/proc/self/status").read())[1]))
"""
    peaks = []
    for count in (500, 5000):
        (tmp_path / str(count)).mkdir()
        process = python(script, tmp_path / str(count), count)
        peaks.append(int(process.communicate()[0].splitlines()[-1]))
    assert peaks[1] < 1.1 * peaks[0], peaks


def make_store(folder, maps, targets=None):
    """A store of given maps."""
    images = np.repeat(np.float32(maps)[..., np.newaxis], 2, axis=-1) / 2

    def show(model, images, targets):
        return images.sum(axis=-1)

    targets = np.zeros(len(maps), int) if targets is None else targets
    return explain_dataset(show, MODEL, images, folder, targets=targets, chunk=7)


def blobs(counts, noise=0.05):
    """Maps that light up in one corner or another, and which."""
    rng = np.random.default_rng(0)
    kind = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    maps = noise * rng.random((len(kind), 8, 8))
    for n, k in enumerate(kind):
        y, x = divmod(k, 2)
        maps[n, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] += 1
    return maps, kind


@pytest.mark.parametrize("counts", [(40, 25), (30, 30, 12), (300, 250, 20)])
def test_maps_that_look_alike_are_one_cluster_and_the_gap_counts_them(tmp_path, counts):
    maps, kind = blobs(counts)
    found = cluster_maps(make_store(tmp_path / "x", maps), size=4)
    assert adjusted_rand_score(kind, found.labels) == 1
    assert np.bincount(found.labels).tolist() == sorted(counts, reverse=True)
    assert np.diff(found.eigenvalues).argmax() + 1 == len(counts)
    np.testing.assert_array_equal(found.index, np.arange(len(maps)))
    np.testing.assert_array_equal(cluster_maps(maps, size=4).labels, found.labels)
    with pytest.raises(ValueError, match="without a target"):
        cluster_maps(maps, target=0)


def test_it_agrees_with_scikit_learn_where_groups_touch(tmp_path):
    maps, _ = blobs((60, 60), noise=4.0)
    found = cluster_maps(make_store(tmp_path / "x", maps), size=8, neighbours=8, clusters=2)
    peer = SpectralClustering(2, affinity="nearest_neighbors", n_neighbors=9, random_state=0)
    assert adjusted_rand_score(peer.fit_predict(found.features), found.labels) > 0.9


def test_many_maps_have_the_spectrum_of_few(tmp_path):
    features = np.random.default_rng(0).random((501, 6))
    features[:80] += 1
    sparse, vectors, _ = at_scale._spectrum(features, 10, 6, 0)
    laplacian = np.eye(501)
    graph = at_scale.kneighbors_graph(features, 10).toarray()
    graph = (graph + graph.T) / 2
    laplacian -= graph / np.sqrt(np.outer(graph.sum(0), graph.sum(0)))
    np.testing.assert_allclose(sparse, np.linalg.eigvalsh(laplacian)[:6], atol=1e-6)
    np.testing.assert_allclose(laplacian @ vectors, vectors * sparse, atol=1e-5)


def test_one_class_by_itself_and_only_what_is_finished(tmp_path):
    maps, kind = blobs((30, 25))
    store = make_store(tmp_path / "x", maps, targets=kind)
    found = cluster_maps(tmp_path / "x", target=1, neighbours=4)
    np.testing.assert_array_equal(found.index, np.flatnonzero(kind == 1))
    zarr.open_group(tmp_path / "x", mode="r+")["digests"][0] = 0
    assert cluster_maps(store, neighbours=4).index.min() == 7
    left = (kind[7:] == 1).sum()  # the first chunk is gone
    with pytest.raises(ValueError, match=f"there are {left} finished heatmaps of this class"):
        cluster_maps(store, target=1, neighbours=30)
