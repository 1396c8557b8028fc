"""The lab on filters: its checks accept what is right and say what is wrong; its oddities show."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from numpy.lib.stride_tricks import sliding_window_view

from course_utils import checks, inspection, labs
from course_utils.labs.filters import checks_of_fields as fields

check = checks.filters


@pytest.fixture(scope="module")
def network():
    return labs.load_stripes_network()


# Each of the next has right answers, of which the first is the lab's own, and wrong ones, with a
# part of the sentence that should come.


def count(kernel, channels_in, filters, groups=1):
    return (kernel[0] * kernel[1] * channels_in // groups + 1) * filters


def count_built(kernel, channels_in, filters, groups=1):
    layer = layers.Conv2D(filters, kernel, groups=groups)
    layer.build((None, 32, 32, channels_in))
    return sum(np.asarray(w).size for w in layer.weights)


def count_looped(kernel, channels_in, filters, groups=1):
    total = np.int32(filters)
    for _ in range(filters):
        for _ in range(kernel[0]):
            total += kernel[1] * (channels_in // groups)
    return total


COUNTS = [count, count_built, count_looped]
WRONG_COUNTS = [
    (lambda k, i, f, g=1: k[0] * k[1] * i // g * f, "biases"),
    (lambda k, i, f, g=1: k[0] * k[1] * i // g * f + 1, "one bias for the whole layer"),
    (lambda k, i, f, g=1: (k[0] * k[1] + 1) * f, "channels that come in"),
    (lambda k, i, f, g=1: (k[0] * k[1] + 1) * i // g * f, "bias for each channel"),
    (lambda k, i, f, g=1: (k[0] ** 2 * i // g + 1) * f, "square"),
    (lambda k, i, f, g=1: 120, "not right"),
    (lambda k, i, f, g=1: None, "returns nothing"),
]


@pytest.mark.parametrize("right", COUNTS)
@pytest.mark.parametrize("grouped", [False, True])
def test_counts(right, grouped):
    check.parameters(right, grouped=grouped)
    check.parameters(right, grouped=grouped, seed=5)


@pytest.mark.parametrize(("wrong", "says"), WRONG_COUNTS)
def test_wrong_counts(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.parameters(wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda k, i, f, g: count(k, i, f), "groups are not taken"),
        (lambda k, i, f, g: count(k, i, f // g, g), "twice"),
        (lambda k, i, f, g: count(k, i, f, g) - f, "biases"),
        (lambda k, i, f, g: count(k, i, f) // g, "not right"),
    ],
)
def test_wrong_counts_with_groups(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.parameters(wrong, grouped=True)


def size(n, kernel, stride, dilation, padding):
    if padding == "same":
        return -(-n // stride)
    return (n - dilation * (kernel - 1) - 1) // stride + 1


def size_looped(n, kernel, stride, dilation, padding):
    units, first = 0, 0
    while first < n and (padding == "same" or first + dilation * (kernel - 1) < n):
        units, first = units + 1, first + stride
    return tf.constant(units)


def size_rounded(n, kernel, stride, dilation, padding):
    reach = 1 if padding == "same" else dilation * (kernel - 1) + 1
    return np.ceil((n - reach + 1) / stride)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("right", [size, size_looped, size_rounded])
def test_sizes(right, padding):
    check.output_size(right, padding=padding)
    check.output_size(right, padding=padding, seed=8)


@pytest.mark.parametrize("stride_dilation", [(1, 1), (3, 1), (1, 3), (5, 1)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_sizes_that_the_check_takes_for_right_are_those_of_keras(stride_dilation, padding):
    stride, dilation = stride_dilation
    for n in range(9, 20):
        layer = layers.Conv1D(1, 3, stride, padding, dilation_rate=dilation)
        assert layer.compute_output_shape((1, n, 1))[1] == size(n, 3, stride, dilation, padding)


@pytest.mark.parametrize(
    ("wrong", "padding", "says"),
    [
        (lambda n, k, s, d, p: (n - d * (k - 1) - 1) // s, "valid", "first place"),
        (lambda n, k, s, d, p: -(-(n - d * (k - 1) - 1) // s) + 1, "valid", "sticks out"),
        (lambda n, k, s, d, p: (n - k) // s + 1, "valid", "dilation is missing"),
        (lambda n, k, s, d, p: (n - k * d) // s + 1, "valid", "no gap"),
        (lambda n, k, s, d, p: n - d * (k - 1), "valid", "stride is missing"),
        (lambda n, k, s, d, p: -(-n // s), "valid", "with padding"),
        (lambda n, k, s, d, p: (n - d * (k - 1) - 1) / s + 1, "valid", "whole number"),
        (lambda n, k, s, d, p: [42], "valid", "one number"),
        (lambda n, k, s, d, p: 42, "valid", "yours is 42"),
        (lambda n, k, s, d, p: n // s, "same", "last place"),
        (lambda n, k, s, d, p: n, "same", "thins"),
        (lambda n, k, s, d, p: size(n, k, s, d, "valid"), "same", "without padding"),
        (lambda n, k, s, d, p: n / s, "same", "whole number"),
    ],
)
def test_wrong_sizes(wrong, padding, says):
    with pytest.raises(checks.NotYet, match=says):
        check.output_size(wrong, padding=padding)


def field(chain):
    size, jump, start = 1, 1, 0
    for kernel, stride, dilation, zeros in chain:
        size, start = size + dilation * (kernel - 1) * jump, start - zeros * jump
        jump *= stride
    return size, jump, start


def field_backwards(chain):
    """From the last layer to the image, as an array."""
    first, last = [0, 1], [0, 1]  # of units 0 and 1
    for kernel, stride, dilation, zeros in reversed(chain):
        first = [f * stride - zeros for f in first]
        last = [f * stride - zeros + dilation * (kernel - 1) for f in last]
    return np.array([last[0] - first[0] + 1, first[1] - first[0], first[0]])


def field_of_sums(chain):
    jumps = np.cumprod([1] + [layer[1] for layer in chain])
    size = 1 + sum((k - 1) * d * j for (k, _, d, _), j in zip(chain, jumps, strict=False))
    return [size, float(jumps[-1]), -sum(z * j for (*_, z), j in zip(chain, jumps, strict=False))]


@pytest.mark.parametrize("right", [field, field_backwards, field_of_sums])
def test_fields(right):
    check.field(right)
    check.field(right, seed=11)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda c: field([(k, s, 1, z) for k, s, _, z in c]), "dilation is not taken"),
        (lambda c: fields._field(c, "k times d"), "no gap"),
        (lambda c: fields._field(c, "jump too soon"), "before the size"),
        (lambda c: fields._field(c, "no jump"), "window is taken for pixels"),
        (lambda c: fields._field(c, "padding in pixels"), "padding in pixels"),
        (lambda c: fields._field(c, "padding ahead"), "wrong sign"),
        (lambda c: field(c)[:2], "three numbers"),
        (lambda c: (3, 1, 0), "the (size|jump) is not right"),
        (lambda c: (field(c)[0], 1, field(c)[2]), "the jump is not right"),
    ],
)
def test_wrong_fields(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.field(wrong)


def seen(chain, unit):
    places = np.array([unit])
    for kernel, stride, dilation, zeros in reversed(chain):
        places = np.unique(places[:, None] * stride + dilation * np.arange(kernel) - zeros)
        places = places[places >= 0]
    return places


def seen_recursively(chain, unit):
    """As a list, by sets and recursion."""
    if unit < 0:
        return []
    if not chain:
        return [unit]
    kernel, stride, dilation, zeros = chain[-1]
    below = (unit * stride - zeros + dilation * w for w in range(kernel))
    return sorted({p for place in below for p in seen_recursively(chain[:-1], place)})


def seen_measured(chain, unit, n=400):
    """By experiment: which values of a row the unit's gradient reaches."""
    row = tf.Variable(np.zeros(n))
    with tf.GradientTape() as tape:
        x = row
        for kernel, stride, dilation, zeros in chain:
            x = tf.pad(x, [[zeros, n]])
            x = sum(x[k * dilation : n + k * dilation] for k in range(kernel))[::stride]
        value = x[unit]
    return np.flatnonzero(tape.gradient(value, row))


@pytest.mark.parametrize("right", [seen, seen_recursively, seen_measured])
def test_pixels(right):
    check.pixels_seen(right)
    check.pixels_seen(right, seed=13)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda c, u: seen(c, 0), "unit 0"),
        (lambda c, u: seen(c[::-1], u), "wrong order"),
        (lambda c, u: seen([(k, s, 1, z) for k, s, _, z in c], u), "dilation"),
        (lambda c, u: seen([(k, 1, d, z) for k, _, d, z in c], u), "the stride is not"),
        (lambda c, u: seen([(k, s, d, 0) for k, s, d, _ in c], u), "zeros before"),
        (lambda c, u: fields._seen(c, u, through_zeros=True), "sees nothing"),
        (lambda c, u: np.arange(seen(c, u).min(), seen(c, u).max() + 1), "no gaps"),
        (lambda c, u: seen(c, u)[::-1], "Sort"),
        (lambda c, u: np.repeat(seen(c, u), 2), "twice"),
        (lambda c, u: np.append(-1, seen(c, u)), "negative"),
        (lambda c, u: [2, 3, 4], "not right"),
        (lambda c, u: seen(c, u)[None], "one axis"),
    ],
)
def test_wrong_pixels(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.pixels_seen(wrong)


def fmap(image, kernel, bias, stride=1, dilation=1, relu=True):
    high, wide = (dilation * (n - 1) + 1 for n in kernel.shape[:2])
    windows = sliding_window_view(image, (high, wide), axis=(0, 1))[::stride, ::stride]
    sums = np.einsum("ijckl,klc->ij", windows[..., ::dilation, ::dilation], kernel) + bias
    return np.maximum(sums, 0) if relu else sums


def fmap_looped(image, kernel, bias, stride=1, dilation=1):
    rows = (image.shape[0] - dilation * (kernel.shape[0] - 1) - 1) // stride + 1
    columns = (image.shape[1] - dilation * (kernel.shape[1] - 1) - 1) // stride + 1
    out = [[bias] * columns for _ in range(rows)]
    for i in range(rows):
        for j in range(columns):
            for y, x, c in np.ndindex(kernel.shape):
                pixel = image[i * stride + y * dilation, j * stride + x * dilation, c]
                out[i][j] += pixel * kernel[y, x, c]
            out[i][j] = max(out[i][j], 0)
    return out


def fmap_tensor(image, kernel, bias, stride=1, dilation=1):
    options = {"strides": stride, "padding": "VALID", "dilations": dilation}
    sums = tf.nn.conv2d(image[None], kernel[..., None], **options)
    return tf.nn.relu(sums + bias)[0, :, :, 0]


@pytest.mark.parametrize("right", [fmap, fmap_looped, fmap_tensor])
@pytest.mark.parametrize("options", [{}, {"stride": 3}, {"dilation": 2}], ids=str)
def test_maps(right, options):
    check.feature_map(right, **options)
    check.feature_map(right, seed=3, **options)


@pytest.mark.parametrize(
    ("wrong", "says", "options"),
    [
        (lambda i, k, b, s, d: fmap(i, k, b, s, d, relu=False), "ReLU", {}),
        (lambda i, k, b, s, d: fmap(i, k, 0, s, d), "lacks the bias", {}),
        (lambda i, k, b, s, d: fmap(i, k, 0, s, d) + b, "after the ReLU", {}),
        (lambda i, k, b, s, d: fmap(i, k[::-1, ::-1], b, s, d), "upside down", {}),
        (lambda i, k, b, s, d: fmap(i[..., :1], k[..., :1], b, s, d), "first channel", {}),
        (lambda i, k, b, s, d: fmap(i, k, b * k.shape[2], s, d), "added once", {}),
        (lambda i, k, b, s, d: fmap(i, k, b), "the stride is not", {"stride": 3}),
        (lambda i, k, b, s, d: fmap(i, k, b), "dilation is not", {"dilation": 2}),
        (lambda i, k, b, s, d: fmap(i, k, b, s, d).T, "swapped", {}),
        (lambda i, k, b, s, d: fmap(i, k, b, s, d)[None], "batch axis", {}),
        (lambda i, k, b, s, d: np.zeros((7, 9)), "same everywhere", {}),
    ],
)
def test_wrong_maps(wrong, says, options):
    with pytest.raises(checks.NotYet, match=says):
        check.feature_map(wrong, **options)


def sens(model, layer, images, unit, finish=np.abs, channels=slice(None)):
    part = keras.Model(model.inputs[0], model.get_layer(layer).output)
    pixels = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        value = tf.reduce_sum(part(pixels)[:, unit[0], unit[1], channels])
    return finish(tape.gradient(value, pixels).numpy()).sum(axis=-1).mean(axis=0)


def sens_one_by_one(model, layer, images, unit):
    return sum(sens(model, layer, image[None], unit) for image in images) / len(images)


def sens_tensor(model, layer, images, unit):
    part = keras.Model(model.inputs, model.get_layer(layer).output)
    pixels = tf.Variable(images)
    with tf.GradientTape() as tape:
        value = part(pixels)[:, unit[0], unit[1]]
    return tf.reduce_mean(tf.reduce_sum(tf.abs(tape.gradient(value, pixels)), -1), 0)


@pytest.mark.parametrize("right", [sens, sens_one_by_one, sens_tensor])
def test_sensitivities(right):
    check.sensitivity(right)
    check.sensitivity(right, seed=3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m, n, i, u: sens(m, n, i, u, lambda g: g), "absolute value"),
        (lambda m, n, i, u: sens(m, n, i, u) * len(i), "sums over the images"),
        (lambda m, n, i, u: sens(m, n, i[:1], u), "first image only"),
        (lambda m, n, i, u: sens(m, n, i, u) / 2, "channels are averaged"),
        (lambda m, n, i, u: sens(m, n, i, u[::-1]), "swapped"),
        (lambda m, n, i, u: sens(m, "below", i, u), "another layer"),
        (lambda m, n, i, u: sens(m, n, i, u) / 4, "unit's channels"),
        (lambda m, n, i, u: check._sensitivity(m, n, i, None), "all units together"),
        (lambda m, n, i, u: sens(m, n, i, u, channels=slice(1)), "right in|pattern"),
        (lambda m, n, i, u: sens(m, n, i, u)[..., None], "shape"),
        (lambda m, n, i, u: np.zeros(i.shape[1:3]), "same everywhere"),
    ],
)
def test_wrong_sensitivities(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.sensitivity(wrong)


def lines():
    """The pixels that no unit looks at, as the theory has them."""
    row = np.ones(44, bool)
    for unit in range(5):
        row[seen([(3, 1, 1, 0), (2, 5, 1, 0), (3, 1, 2, 0)], unit)] = False
    return row[:, None] | row


def spoilt(change):
    mask = lines()
    change(mask)
    return mask


@pytest.mark.parametrize(
    "mask", [lines(), lines().astype(int), lines().tolist(), tf.constant(lines())]
)
def test_the_blind_lines_are_found_by_theory_and_by_experiment(network, mask):
    check.blind(mask, network)
    check.blind_complete(mask, network, seed=4)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (..., "no value"),
        (np.zeros((44, 44), bool), "no pixel"),
        (np.ones((44, 44), bool), "do matter"),
        (np.roll(lines(), 1, 0), "do matter"),
        (~lines(), "do matter"),
        (spoilt(lambda m: m.__setitem__((10, 10), True)), "do matter"),
        (lines()[:40], "shape"),
        (lines() * 0.5, "True or False"),
    ],
)
def test_wrong_masks(network, mask, says):
    with pytest.raises(checks.NotYet, match=says):
        check.blind(mask, network)


def test_too_small_a_mask_passes_the_experiment_and_not_the_hidden_test(network):
    small = spoilt(lambda m: m.__setitem__((slice(None), slice(30)), False))
    check.blind(small, network)
    with pytest.raises(checks.NotYet, match="more pixels"):
        check.blind_complete(small, network)


def dead(maps):
    return np.flatnonzero((maps == 0).all(axis=(0, 1, 2)))


def dead_looped(maps):
    return [f for f in range(maps.shape[-1]) if not maps[..., f].any()]


def dead_tensor(maps):
    return tf.where(tf.reduce_max(maps, [0, 1, 2]) <= 0)[:, 0]


@pytest.mark.parametrize("right", [dead, dead_looped, dead_tensor])
def test_dead(right):
    check.silent(right)
    check.silent(right, seed=3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m: (m == 0).all(axis=(0, 1, 2)), "True or False"),
        (lambda m: dead(m[:1]), "first image|one place of one image"),
        (lambda m: np.flatnonzero(np.ptp(m, axis=(0, 1, 2)) == 0), "same everywhere"),
        (lambda m: np.flatnonzero(m.max(axis=(0, 1, 2)) < 0.01), "faint"),
        (lambda m: np.flatnonzero(np.median(m, axis=(0, 1, 2)) <= 0), "too many"),
        (lambda m: dead(m)[::-1], "Sort"),
        (lambda m: dead(m)[:1], "not that of"),
        (lambda m: [3, 8], "too many|not that of"),
    ],
)
def test_wrong_dead(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.silent(wrong)


def alike(maps, choose=np.nanargmax, sign=lambda c: c):
    values = maps.reshape(-1, maps.shape[-1])
    with np.errstate(invalid="ignore"):
        likeness = sign(np.corrcoef(values.T))
    likeness[np.tril_indices(len(likeness))] = -2
    return np.unravel_index(choose(likeness), likeness.shape)


def alike_looped(maps):
    best = -2, None
    for j in range(maps.shape[-1]):
        for i in range(j):
            a, b = maps[..., i].ravel(), maps[..., j].ravel()
            if a.std() > 0 and b.std() > 0:
                found = np.mean((a - a.mean()) * (b - b.mean())) / a.std() / b.std()
                best = max(best, (found, [i, j]))
    return best[1]


def alike_by_distance(maps):
    """Of standardised maps: the least distance is the largest correlation."""
    values = maps.reshape(-1, maps.shape[-1]).T.astype(float)
    values = values - values.mean(axis=1, keepdims=True)
    size = np.linalg.norm(values, axis=1, keepdims=True)
    values = np.where(size > 0, values / np.where(size > 0, size, 1), np.nan)
    gaps = np.linalg.norm(values[:, None] - values, axis=-1)
    gaps[np.tril_indices(len(gaps))] = np.inf
    return tf.constant(np.unravel_index(np.nanargmin(gaps), gaps.shape))


def nearest(maps):
    values = maps.reshape(-1, maps.shape[-1]).T
    gaps = np.linalg.norm(values[:, None] - values, axis=-1)
    gaps[np.tril_indices(len(gaps))] = np.inf
    gaps[(gaps == 0)] = np.inf
    return np.unravel_index(gaps.argmin(), gaps.shape)


@pytest.mark.parametrize("right", [alike, alike_looped, alike_by_distance])
def test_alike(right):
    check.most_alike(right)
    check.most_alike(right, seed=3)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m: alike(m)[::-1], "other order"),
        (lambda m: (0, 0), "like itself"),
        (lambda m: alike(m, np.argmax), "NaN"),
        (lambda m: alike(m, sign=lambda c: -c), "opposite"),
        (nearest, "values are close"),
        (lambda m: alike(m)[0], "two numbers"),
        (lambda m: (1, 10), "not the most alike|numbers"),
    ],
)
def test_wrong_alike(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.most_alike(wrong)


@pytest.mark.parametrize(("found", "pair"), [([3, 8], (1, 10)), (np.array([8, 3]), [10, 1])])
def test_the_damage_is_found(network, found, pair):
    check.damage(found, pair, network)
    check.damage_complete(found, pair, network, seed=3)


@pytest.mark.parametrize(
    ("found", "pair", "says"),
    [
        (..., (1, 10), "no value"),
        ([], (1, 10), "empty"),
        ([3, 6, 8], (1, 10), "alive"),
        ([3, 40], (1, 10), "0 to 11"),
        ([3, np.nan], (1, 10), "0 to 11"),
        ([3, 8], (1, np.inf), "0 to 11"),
        ([3, 8], ..., "no value"),
        ([3, 8], (1, 1), "two different"),
        ([3, 8], (1, 3), "never answers"),
        ([3, 8], (1, 11), "not copies"),
        ([3, 8], (2, 11), "not copies"),
    ],
)
def test_wrong_damage(network, found, pair, says):
    with pytest.raises(checks.NotYet, match=says):
        check.damage(found, pair, network)


def test_only_the_copies_can_speak_for_each_other(network):
    maps = inspection.feature_maps(network, labs.make_stripes(300, seed=0).images, "conv_1")
    likeness = np.corrcoef(np.delete(maps, (3, 8), axis=-1).reshape(-1, 10).T)
    likeness = np.sort(likeness[np.triu_indices(10, 1)])
    assert likeness[-1] > 0.999999
    assert likeness[-2] < 0.95


def test_half_of_the_dead_pass_the_experiment_and_not_the_hidden_test(network):
    check.damage([3], (1, 10), network)
    with pytest.raises(checks.NotYet, match="more dead"):
        check.damage_complete([3], (1, 10), network)


def test_the_network_is_good_and_its_oddities_show_on_new_images(network):
    images, labels = labs.make_stripes(300, seed=21)
    assert (network.predict(images, verbose=0).argmax(axis=1) == labels).mean() > 0.97
    maps = inspection.feature_maps(network, images, "conv_1")
    assert dead(maps).tolist() == [3, 8]
    assert tuple(alike(maps)) == (1, 10)
    seldom = (maps[..., 6] > 0).any(axis=(1, 2)).mean()
    assert 0 < seldom < 0.1
    assert (check._reached(network, 9) == ~lines()).all()


def test_a_network_without_them_shows_none():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((44, 44, 1)),
            layers.Conv2D(12, 3, activation="relu", name="conv_1"),
            layers.Conv2D(20, 2, strides=2, activation="relu", name="conv_2"),
            layers.Conv2D(24, 3, dilation_rate=2, activation="relu", name="conv_3"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(6, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    stripes = labs.make_stripes(600, seed=0)
    model.fit(stripes.images, stripes.labels, epochs=1, verbose=0)
    maps = inspection.feature_maps(model, stripes.images[:200], "conv_1")
    values = maps[..., [f for f in range(12) if f not in dead(maps)]].reshape(
        -1, 12 - len(dead(maps))
    )
    assert np.corrcoef(values.T)[np.triu_indices(values.shape[1], 1)].max() < 0.999
    assert check._reached(model, 1).all()
    with pytest.raises(checks.NotYet, match="do matter"):
        check.blind(lines(), model)


def test_stripes_are_drawn_from_their_seed():
    one, same, other = (labs.make_stripes(20, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.images, same.images)
    assert not np.array_equal(one.images, other.images)
    assert one.images.shape == (20, 44, 44, 1)
    assert one.images.min() >= 0
    assert one.images.max() <= 1


def test_stripes_run_at_the_angle_of_their_class():
    images, labels = labs.make_stripes(120, seed=5)
    rows, columns = np.gradient(images[..., 0] - 0.5, axis=(1, 2))
    # The gradient is across the stripes; its doubled angle can be averaged.
    doubled = np.arctan2((2 * -rows * columns).sum((1, 2)), (columns**2 - rows**2).sum((1, 2)))
    along = (np.degrees(doubled) / 2 + 90) % 180
    off = np.abs((along - np.array(labs.STRIPE_ANGLES)[labels] + 90) % 180 - 90)
    assert np.median(off) < 9
    assert (off < 25).mean() > 0.95


def test_no_sentence_gives_the_answers_away(network):
    said = []
    for attempt in (
        lambda: check.blind(np.ones((44, 44), bool), network),
        lambda: check.blind_complete(spoilt(lambda m: m.__setitem__(slice(30), False)), network),
        lambda: check.damage([0], (0, 2), network),
        lambda: check.damage([3], (0, 2), network),
        lambda: check.damage_complete([3], (1, 10), network),
        lambda: check.output_size(lambda *a: 42),
        lambda: check.parameters(lambda *a: 42),
    ):
        with pytest.raises(checks.NotYet) as error:
            attempt()
        said.append(str(error.value))
    words = ("column", "row ", "fifth", "every 5", "3 and 8", "3, 8", "1 and 10", "(1, 10)")
    assert not any(word in sentence for word in words for sentence in said[:5])
    assert "yours is 42" in said[5]
    assert " 5" not in said[5].split(":")[1]  # the size of the first case
    assert said[6] == "the count is 42, which is not right."
