"""What a patch cannot change is not computed again, whatever the graph, and nothing else changes.

Random graphs of all local layers agree with the whole network run for every place.
"""

import time
from threading import Event, Thread

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from keras import layers, ops

from course_utils import _local, _partial, occlusion
from course_utils._plain import _KEPT, flattened


class Dice:
    """Choices that a seed decides."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]


def convolution(dice, x, filters=None, same=True, **options):
    kernel = dice(1, 2, 3), dice(1, 3, 3)
    activation = dice(None, "relu", "tanh", "gelu")
    padding = "same" if same else dice("same", "valid")
    filters = filters or dice(2, 4, 6)
    return layers.Conv2D(filters, kernel, padding=padding, activation=activation, **options)(x)


def plain(dice, x):
    if dice(0, 1):
        return convolution(dice, x, same=False, dilation_rate=dice(1, 2))
    return convolution(dice, x, same=False, strides=dice(1, 2), use_bias=dice(True, False))


def depthwise(dice, x):
    options = {"strides": dice(1, 2), "padding": dice("same", "valid")}
    return layers.DepthwiseConv2D(3, depth_multiplier=dice(1, 2), activation="relu6", **options)(x)


def separable(dice, x):
    return layers.SeparableConv2D(4, 3, padding=dice("same", "valid"), activation="relu")(x)


def grouped(dice, x):
    return layers.Conv2D(4, 3, groups=2 if x.shape[-1] % 2 == 0 else 1, padding="same")(x)


def transposed(dice, x):
    options = {"strides": dice((1, 1), (2, 1), (2, 3)), "padding": dice("same", "valid")}
    return layers.Conv2DTranspose(3, dice(1, 2, 3, 4), activation=dice(None, "relu"), **options)(x)


def moved(dice, x):
    return dice(
        layers.ZeroPadding2D(((dice(0, 1, 2), 1), (2, dice(0, 3)))),
        layers.Cropping2D(((1, dice(0, 2)), (dice(0, 1), 2))),
        layers.UpSampling2D((2, dice(1, 2))),
    )(x)


def pooling(dice, x):
    kind = dice(layers.MaxPooling2D, layers.AveragePooling2D)
    return kind(dice(2, 3), dice(1, 2), dice("same", "valid"))(x)


def by_itself(dice, x):
    channels = x.shape[-1]
    return dice(
        layers.Rescaling(0.5, 0.1),
        layers.Normalization(mean=[0.1] * channels, variance=[2.0] * channels),
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        layers.LeakyReLU(0.2),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Softmax(),
        layers.Dropout(0.5, seed=0),
        ops.tanh,
        lambda x: x / 2 - 0.1,
        lambda x: ops.maximum(x, 0.0),
        lambda x: x[..., ::-1],
        lambda x: x * np.arange(1, channels + 1, dtype=np.float32),
    )(x)


def residual(dice, x):
    added = convolution(dice, x, x.shape[-1])
    if dice(0, 1):
        added = convolution(dice, added, x.shape[-1])
    return layers.Add()([x, added]) if dice(0, 1) else added + x


def branches(dice, x):
    ways = [convolution(dice, x, 3), convolution(dice, convolution(dice, x), 3)]
    join = dice(layers.Concatenate, layers.Multiply, layers.Maximum, layers.Average)()
    return join([x, *ways]) if isinstance(join, layers.Concatenate) else join(ways)


def gate(dice, x):
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, layers.Dense(x.shape[-1], "sigmoid")(pooled)])


def nested(dice, x):
    inner = keras.Input(x.shape[1:])
    model = keras.Model(inner, layers.ReLU()(convolution(dice, inner, x.shape[-1])))
    return model(model(x)) if dice(0, 1) else model(x)


LAYERS = (plain, depthwise, separable, grouped, transposed, moved, pooling, by_itself)
RULES = (*LAYERS, by_itself, residual, residual, branches, gate, nested)


def random_graph(seed):
    """A network of random layers, and their names; its inputs are a bit larger than wide."""
    dice = Dice(seed)
    keras.utils.set_random_seed(seed)
    inputs = x = keras.Input((dice(26, 29, 33), dice(25, 28, 30), dice(1, 3)))
    rules = [plain]
    for _ in range(dice(2, 3, 4, 5, 6)):
        x = rules[-1](dice, x)
        rules.append(dice(*RULES) if 9 < min(x.shape[1:3]) < max(x.shape[1:3]) < 60 else by_itself)
    heads = layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.Flatten
    model = keras.Model(inputs, layers.Dense(3)(dice(*heads)()(x)))
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(dice.rng.uniform(0.5, 1.5, weight.shape))
    return model, [rule.__name__ for rule in rules[:-1]]


def check(seed):
    """Assert that occluded images are scored as by the whole network; say whether they had to."""
    model, names = random_graph(seed)
    shape, dice = model.input_shape[1:], Dice(seed)
    patch = dice(2, 3, 4, 6)
    stride = max(1, patch - dice(0, 1, 2))
    image, fill = dice.rng.normal(size=(2, *shape)).astype(np.float32)
    places = occlusion.patch_places(shape, patch, stride)
    occlude = _partial.partial_pass(model, shape, patch, stride)
    if occlude is None:
        return False
    middle = len(places) // 2
    batches = [places[:middle], places[middle:]]
    found, right = (
        np.concatenate(list(run(image, fill, batches)))
        for run in (occlude, occlusion._whole_pass(model, patch))
    )
    size = np.abs(right).max()
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-5 * size, err_msg=str(names))
    return np.ptp(right, axis=0).max() > 1e-3 * size


def test_random_graphs_give_what_whole_networks_give():
    assert sum(check(seed) for seed in range(5)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("tens", range(20))
def test_200_random_graphs_give_what_whole_networks_give(tens):
    assert sum(check(10 * tens + ones) for ones in range(10)) >= 4


def test_a_wrong_window_is_seen(monkeypatch):
    """A convolution that is thought to reach a pixel less far in front."""
    through = _local.through

    def nearer(changed, reach, stride, padding):
        after, before = through(changed, reach, stride, padding)
        if reach > 1:
            after = _local.changes(after.first + 1, after.stop, after.length)
        return after, before

    monkeypatch.setattr(_local, "through", nearer)
    with pytest.raises(AssertionError):
        any([check(seed) for seed in range(5)])


def test_what_is_compiled_is_kept():
    model, _ = random_graph(0)
    kept = [_partial.partial_pass(model, model.input_shape[1:], 3, 3) for _ in range(2)]
    assert kept[0] is not None
    assert kept[0] is kept[1]


@settings(max_examples=300)
@given(st.integers(1, 30), st.integers(1, 7), st.integers(1, 4), st.booleans(), st.data())
def test_what_changes_behind_a_layer_is_what_its_windows_touch(length, reach, stride, same, data):
    assume(same or reach <= length)
    first = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(first + 1, length))
    before = _local.changes(np.array([first]), np.array([stop]), length)
    after, left = _local.through(before, reach, stride, "same" if same else "valid")
    right = max(0, (after.length - 1) * stride + reach - left - length)
    pixels = np.pad(np.arange(length), (left, right), constant_values=-1)
    windows = [pixels[i * stride : i * stride + reach] for i in range(after.length)]
    assert all(len(window) == reach for window in windows)
    touched = [i for i, w in enumerate(windows) if ((first <= w) & (w < stop)).any()]
    if touched:
        assert (after.first[0], after.stop[0]) == (touched[0], touched[-1] + 1)
    else:
        assert after.first[0] >= after.stop[0]


def plan_of(*parts, shape=(20, 20, 2), patch=4):
    """The names of the layers that a network computes in windows."""
    model = keras.Sequential([keras.Input(shape), *parts, layers.Flatten(), layers.Dense(2)])
    steps = _partial.make_plan(flattened(model, shape), patch, patch)
    return steps and [type(step.layer).__name__ for step in steps]


def test_windows_are_taken_up_to_where_one_fills_the_map():
    assert plan_of(layers.Conv2D(2, 3), layers.MaxPooling2D()) == ["Conv2D", "MaxPooling2D"]
    assert plan_of(layers.Conv2D(2, 3), layers.MaxPooling2D(15, 1, "same")) == ["Conv2D"]
    assert plan_of(layers.Conv2D(2, 17)) is None, "every output sees every patch"


def test_windows_that_save_little_are_not_taken():
    assert plan_of(layers.Conv2D(2, 3), patch=18) is None


def test_branches_have_windows_of_their_own():
    inputs = keras.Input((20, 20, 2))
    ways = [layers.Conv2D(2, n, padding="same", name=f"reach_{n}")(inputs) for n in (3, 5)]
    x = layers.Add(name="sum")([layers.ReLU(name="relu")(ways[0]), ways[1]])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 9, name="last")(x))
    flat = keras.Model(inputs, layers.Dense(2)(x))
    steps = _partial.make_plan(flat, 4, 4)
    sizes = {step.layer.name: [axis.size for axis in step.after] for step in steps}
    assert sizes == {"reach_3": [6, 6], "relu": [6, 6], "reach_5": [8, 8], "sum": [8, 8]}


def lambda_layer(x):
    return x[:, ::-1]


@pytest.mark.parametrize(
    "part",
    [
        layers.Lambda(lambda_layer),
        layers.Activation(lambda_layer),
        layers.Conv2D(2, 3, activation=lambda_layer),
        layers.BatchNormalization(axis=1),
        layers.Softmax(axis=1),
        layers.Conv2D(2, 3, dtype="mixed_float16"),
        layers.UpSampling2D(interpolation="bilinear"),
        layers.Conv2DTranspose(2, 3, strides=2, output_padding=1),
        layers.LayerNormalization(axis=(1, 2)),
        layers.PReLU(),
    ],
    ids=lambda part: part.name,
)
def test_what_is_not_known_to_be_local_is_left_to_the_whole_network(part):
    assert plan_of(part, layers.Conv2D(2, 3)) is None


def test_dropout_that_is_left_on_is_left_to_the_whole_network():
    inputs = keras.Input((20, 20, 1))
    x = layers.Dropout(0.5)(layers.Conv2D(2, 3)(inputs), training=True)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    steps = _partial.make_plan(model, 4, 4)
    assert [type(step.layer) for step in steps] == [layers.Conv2D]


def agrees(model, patch):
    """Assert that occlusion is what the whole network says of each covered picture."""
    shape = model.input_shape[1:]
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    places = occlusion.patch_places(shape, patch, patch)
    covered = np.repeat(image[np.newaxis], len(places), axis=0)
    for picture, (row, column) in zip(covered, places, strict=True):
        picture[row : row + patch, column : column + patch] = 0
    whole, *left = np.asarray(model(np.concatenate([image[np.newaxis], covered])))[:, 0]
    found = occlusion.occlusion_map(model, image[np.newaxis], 0, patch=patch, score="logit")[0]
    corners = found[tuple(np.transpose(places))]
    np.testing.assert_allclose(corners, whole - np.array(left), atol=1e-5)
    assert np.ptp(corners) > 1e-3


def test_layers_of_one_name_in_two_nested_models():
    """As in an ensemble, or where a loaded network gets a new head."""
    inputs = keras.Input((16, 16, 2))
    branches = []
    for k in range(2):
        parts = [layers.Conv2D(3, 3, activation="relu", name="conv"), layers.Flatten(name="flat")]
        branch = keras.Sequential([keras.Input((16, 16, 2)), *parts], name=f"branch_{k}")
        branches.append(branch(inputs))
    agrees(keras.Model(inputs, layers.Dense(2, name="conv")(layers.Concatenate()(branches))), 4)


class Blur(layers.Layer):
    """Its `kernel` is a number and no weight."""

    def __init__(self, kernel):
        super().__init__()
        self.kernel = kernel

    def call(self, x):
        return ops.average_pool(x, self.kernel, 1, "same")


def test_a_layer_of_the_user_s_whose_kernel_is_a_number():
    parts = [layers.Conv2D(3, 3, activation="relu"), Blur(3), layers.Flatten(), layers.Dense(2)]
    agrees(keras.Sequential([keras.Input((16, 16, 2)), *parts]), 4)


def test_what_was_cropped_away_is_not_read():
    """One place along the rows: its window is as large as what the convolution reads, and lies
    where that begins, but holds rows that are no longer there."""
    parts = [layers.Conv2D(4, 1), layers.Cropping2D(((1, 1), (0, 0)))]
    parts += [layers.Conv2D(4, (3, 1), padding="same", activation="relu")]
    parts += [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((10, 40, 2)), *parts])
    model.layers[0].bias.assign([1, 2, 3, 4])  # or the rows that are covered would be a border's
    agrees(model, 10)


def test_a_model_keeps_what_was_compiled_for_the_last_sizes_only():
    inputs = keras.Input((None, None, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    passes = [_partial.partial_pass(model, (size, 20, 1), 4, 4) for size in range(20, 40)]
    assert None not in passes
    assert _partial.partial_pass(model, (39, 20, 1), 4, 4) is passes[-1]
    assert len(_KEPT[model][1]) == 32, "sixteen networks laid flat, sixteen passes"


def test_of_two_threads_none_puts_back_what_the_other_has_changed():
    layer, first_is_in, first_may_go = layers.Conv2D(2, 3, padding="same"), Event(), Event()

    def first():
        with _local._unpadded(layer):
            first_is_in.set()
            first_may_go.wait(60)

    def second():
        with _local._unpadded(layer):
            first_may_go.wait(60)
            time.sleep(0.1)  # for the first to put back what it found

    threads = [Thread(target=first), Thread(target=second)]
    threads[0].start()
    first_is_in.wait(60)
    threads[1].start()
    time.sleep(0.1)  # without a lock the second would be in by now
    first_may_go.set()
    for thread in threads:
        thread.join()
    assert layer.padding == "same"
