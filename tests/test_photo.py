"""explain_photo draws every method's own map of the class that was asked for, or says why not."""

import functools

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from keras import layers
from PIL import Image

from course_utils import cam, gradients, photo
from course_utils.datasets import load_photo
from course_utils.models import ImageClassifier, imagenet_classifier

NAMES = ["cat", "dog", "missile", "missile", "sea urchin", "cup"]


@functools.cache
def small_classifier():
    """A classifier of 64-pixel photos with the real one's interface, and no knowledge."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(8, 5, 2, activation="relu"),
            layers.Conv2D(8, 5, 2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(
                6, activation="softmax", kernel_initializer=keras.initializers.Orthogonal(9)
            ),
        ]
    )
    real = imagenet_classifier()

    def crop(pixels):
        return np.asarray(Image.fromarray(real.crop(pixels)).resize((64, 64)))

    def preprocess(pixels):
        return crop(pixels)[np.newaxis].astype(np.float32) / 128 - 1

    def decode(answers, top=5):
        order = np.argsort(-answers, axis=1)[:, :top]
        rows = zip(order, answers, strict=True)
        return [[(int(i), NAMES[i], float(row[i])) for i in indices] for indices, row in rows]

    return ImageClassifier(model, preprocess, decode, crop, None, 64, NAMES, "small")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_the_maps_are_each_method_s_own_for_the_class_that_was_asked_for():
    classifier = small_classifier()
    found = photo.explain_photo("coffee", "Dog", classifier=classifier)
    images = classifier.preprocess(load_photo("coffee", None))
    assert found.target == 1
    assert found.probability == pytest.approx(float(classifier.model(images)[0, 1]))
    assert set(found.heatmaps) == set(photo.METHODS)
    for name, method in {
        "saliency": gradients.saliency_map,
        "integrated gradients": gradients.integrated_gradients,
        "Grad-CAM": cam.grad_cam,
    }.items():
        assert found.heatmaps[name] == pytest.approx(method(classifier.model, images, 1)[0])
    for name, heatmap in found.heatmaps.items():
        assert heatmap.shape == (64, 64)
        if name in photo.UNSIGNED:
            assert heatmap.min() >= 0, name


def test_without_a_class_it_takes_the_likeliest():
    classifier = small_classifier()
    found = photo.explain_photo(load_photo("coffee", None), classifier=classifier)
    answer = classifier.model(classifier.preprocess(load_photo("coffee", None)))[0].numpy()
    assert found.target == answer.argmax() == found.top[0][0]
    assert [p for _, _, p in found.top] == sorted((p for _, _, p in found.top), reverse=True)


def test_the_figure_names_the_class_and_every_method_and_what_one_stands_for():
    found = photo.explain_photo("coffee", 4, classifier=small_classifier())
    assert "sea urchin (class 4), probability 0." in found.figure.get_suptitle()
    titles = [axis.get_title() for axis in found.figure.axes]
    for name, heatmap in found.heatmaps.items():
        one = np.percentile(np.abs(heatmap), 99) or 1.0
        assert f"{name} (1 is {one:.2g})" in titles


def test_it_saves_a_png_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "mine.png"
    photo.explain_photo("coffee", 0, classifier=small_classifier(), save=path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 1500
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(photo.os, "replace", fail)
    with pytest.raises(OSError, match="the disk is full"):
        photo.explain_photo("coffee", 1, classifier=small_classifier(), save=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/such/folder/mine.png", "No such file or directory. Name a folder that exists"),
        ("folder.png", "that is a folder"),
        ("x" * 300 + ".png", "File name too long"),
        (3, "save must be the path of a .png file, got '3'"),
    ],
)
def test_what_cannot_be_saved_is_found_out_before_anything_runs(
    path, message, tmp_path, monkeypatch
):
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(photo, "predict", None)
    path = tmp_path / path if isinstance(path, str) else path
    with pytest.raises(ValueError, match=message):
        photo.explain_photo("coffee", 0, classifier=small_classifier(), save=path)
    assert [found.name for found in tmp_path.iterdir()] == ["folder.png"]


def test_the_home_folder_is_known_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert photo._check_save("~/mine.png") == tmp_path / "mine.png"
    assert list(tmp_path.iterdir()) == []


def test_a_batch_of_one_is_a_photo_and_of_two_is_not():
    pixels = load_photo("coffee", None)
    np.testing.assert_array_equal(photo._one(pixels[np.newaxis]), pixels)
    with pytest.raises(ValueError, match="explains one photo, got 2"):
        photo.explain_photo(np.stack([pixels, pixels]), classifier=small_classifier())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("panda bear", "the network has no class 'panda bear'"),
        ("urchin", "Close to it: sea urchin"),
        ("missile", r"classes \[2, 3\] are all called 'missile': choose one by its index"),
        (6, "0 to 5, got 6"),
        (-1, "got -1"),
        (True, "got True"),
        (1.0, "got 1.0"),
    ],
)
def test_a_class_that_does_not_exist_is_refused_before_anything_runs(target, message, monkeypatch):
    monkeypatch.setattr(photo, "predict", None)
    with pytest.raises(ValueError, match=message):
        photo.explain_photo("coffee", target, classifier=small_classifier())


@pytest.mark.parametrize(
    ("picture", "options", "message"),
    [
        (b"no image", {}, "not a JPEG, PNG or WebP"),
        (b"", {}, "is empty"),
        ("no_such_photo", {}, "there is no photo or file 'no_such_photo'"),
        (np.zeros((5, 5, 4), np.uint8), {}, r"must have shape \(height, width, 3\)"),
        ("coffee", {"save": "mine.jpg"}, r"the path of a \.png file, got 'mine.jpg'"),
    ],
)
def test_a_bad_photo_or_path_is_refused(picture, options, message):
    with pytest.raises(ValueError, match=message):
        photo.explain_photo(picture, **options)
