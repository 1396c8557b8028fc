"""The checks of the lab on filters and receptive fields."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from course_utils import inspection, labs
from course_utils._scores import predict
from course_utils._shared import channels_last
from course_utils.labs._engine import NotYet, as_array, call, compare, one_of, well_done
from course_utils.labs.filters.checks_of_fields import field as field
from course_utils.labs.filters.checks_of_fields import output_size as output_size
from course_utils.labs.filters.checks_of_fields import pixels_seen as pixels_seen


def parameters(function, *, seed=0, grouped=False):
    """``function(kernel, channels_in, filters, groups)`` counts the numbers that a layer learns."""
    rng = np.random.default_rng(seed)
    for _ in range(4):
        (high, wide), groups = rng.integers(1, 8, 2), int(rng.integers(2, 5)) if grouped else 1
        high += high == wide  # so that no rule for square windows will do
        ins, outs = (groups * int(n) for n in rng.permutation([2, 3, 5, 7])[:2])
        options = {"groups": groups}
        layer = layers.Conv2D(outs, (int(high), int(wide)), **options)
        layer.build((None, 20, 20, ins))
        found = call(function, (int(high), int(wide)), ins, outs, groups)
        window = int(high) * int(wide)
        mistakes = {
            "the count lacks the biases: a filter has one, whatever its size.": window
            * (ins // groups)
            * outs,
            "the count has one bias for the whole layer, and each filter has its own.": window
            * (ins // groups)
            * outs
            + 1,
            "the count leaves out the channels that come in: a filter has weights for each.": (
                window + 1
            )
            * outs,
            "the count has a bias for each channel that comes in; a filter adds only one.": (
                window + 1
            )
            * (ins // groups)
            * outs,
            "the window is taken for a square. Its height and its width may differ.": (
                int(high) ** 2 * (ins // groups) + 1
            )
            * outs,
        }
        if grouped:
            mistakes |= {
                "groups are not taken into account. With several, a filter looks at the channels "
                "of its own group only.": (window * ins + 1) * outs,
                "the filters are divided among the groups twice. Each filter is in one group, so "
                "their number stays; what shrinks is what each of them looks at.": (
                    window * (ins // groups) + 1
                )
                * (outs // groups),
            }
        compare(found, layer.count_params(), what="the count", mistakes=mistakes, tolerance=1e-9)
    kind = "layers with groups" if grouped else "plain layers"
    well_done(f"your count is Keras's, for {kind} of four shapes.")


def feature_map(function, *, seed=0, stride=1, dilation=1):
    """``function(image, kernel, bias, stride, dilation)`` is one filter's map, after ReLU."""
    rng = np.random.default_rng(seed)
    for shape, window in (((9, 11, 1), (3, 3)), ((12, 9, 3), (2, 3)), ((10, 14, 4), (3, 2))):
        image = rng.random(shape, np.float32)
        bias = float(rng.uniform(0.1, 0.5))
        above = 0
        while not 0.2 < above < 0.8:  # the share of the sums that the ReLU lets through
            kernel = rng.normal(size=(*window, shape[2])).astype(np.float32)

            def convolve(k=kernel, b=bias, s=stride, d=dilation, relu=True, image=image):
                k = np.asarray(k, np.float32)[..., np.newaxis]
                options = {"strides": s, "dilation_rate": d}
                sums = np.asarray(keras.ops.conv(image[np.newaxis], k, **options))[0, ..., 0] + b
                return np.maximum(sums, 0) if relu else sums

            above = np.mean(convolve(relu=False) > 0)

        mistakes = {
            "the map has not gone through the ReLU.": convolve(relu=False),
            "the map lacks the bias.": convolve(b=0),
            "the bias is added after the ReLU. It belongs to the sum, before it.": convolve(b=0)
            + bias,
            "the kernel is turned upside down, as mathematicians convolve. A layer slides it as it "
            "is.": convolve(kernel[::-1, ::-1]),
            "the bias is added once for each weight or channel. It is added once.": convolve(
                b=bias * shape[2]
            ),
            "only the first channel is used. A filter sums over all of them.": convolve(
                np.concatenate([kernel[..., :1], 0 * kernel[..., 1:]], axis=-1)
            ),
        }
        if stride > 1:
            mistakes["the stride is not taken into account."] = convolve(s=1)
        if dilation > 1:
            mistakes["dilation is not taken into account: the weights are d pixels apart."] = (
                convolve(d=1)
            )
        if shape[2] == 1:
            for sentence in list(mistakes)[4:6]:
                del mistakes[sentence]
        found = call(function, image, kernel, bias, stride, dilation)
        compare(found, convolve(), what="the map", mistakes=mistakes)
    how = f"stride {stride}, dilation {dilation}"
    well_done(f"your map is what a layer makes of three images ({how}).")


@channels_last()
def sensitivity(function, *, seed=0):
    """``function(model, layer, images, unit)``: how much each pixel moves the unit."""
    rng = np.random.default_rng(seed)
    for high, wide, unit in ((15, 18, (2, 4)), (17, 14, (5, 1))):
        keras.utils.set_random_seed(seed + high)
        model = keras.Sequential(
            [
                keras.Input((high, wide, 2)),
                layers.Conv2D(5, 3, activation="relu", name="below"),
                layers.Conv2D(4, (2, 3), dilation_rate=2, activation="relu", name="above"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3, activation="softmax"),
            ]
        )
        images = rng.random((6, high, wide, 2), np.float32)
        found = call(function, model, "above", images, unit)
        right = _sensitivity(model, "above", images, unit)
        mistakes = {
            "the map has lost the absolute value: where two images pull in opposite directions "
            "it says that nothing matters.": _sensitivity(model, "above", images, unit, "signed"),
            "the map sums over the images, and it should be their mean.": 6 * right,
            "the map is of the first image only.": _sensitivity(model, "above", images[:1], unit),
            "the image's channels are averaged. Sum their absolute values.": right / 2,
            "row and column of the unit are swapped: height comes first.": _sensitivity(
                model, "above", images, unit[::-1]
            ),
            "the map is that of all units together. Pick the one unit before you take the "
            "gradient.": _sensitivity(model, "above", images, None),
            "the map is that of another layer.": _sensitivity(model, "below", images, unit),
            "the unit's channels are averaged. Sum over them.": right / 4,
        }
        compare(found, right, what="the map", mistakes=mistakes)
    well_done("your map is right for two networks, images of other shapes and with two channels.")


def _sensitivity(model, layer, images, unit, mistake=None):
    part = keras.Model(model.inputs[0], model.get_layer(layer).output)
    pixels = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        outputs = part(pixels, training=False)
        score = tf.reduce_sum(outputs if unit is None else outputs[:, unit[0], unit[1]])
    slope = tape.gradient(score, pixels).numpy()
    slope = slope if mistake == "signed" else np.abs(slope)
    return slope.mean(axis=0).sum(axis=-1)


def blind(mask, model, *, seed=0):
    """``mask`` (44, 44) claims pixels that change nothing: the check fills them with noise."""
    mask = as_array(mask, "the mask")
    if mask.shape != model.input_shape[1:3]:
        raise NotYet(f"the mask should have shape {model.input_shape[1:3]}, not {mask.shape}.")
    if not np.isin(mask, (0, 1)).all():
        raise NotYet("the mask should be True or False for each pixel.")
    mask = mask.astype(bool)
    if not mask.any():
        raise NotYet("your mask claims no pixel at all.")
    rng = np.random.default_rng(seed)
    images = labs.make_stripes(40, seed=1000 + seed).images
    noisy = images.copy()
    noisy[:, mask] = rng.random((40, mask.sum(), 1))
    features = keras.Model(model.inputs[0], model.layers[-2].output)
    moved = np.abs(predict(features, noisy, 64) - predict(features, images, 64))
    if moved.max() > 1e-5:
        answers = [predict(model, i, 64).argmax(axis=1) for i in (noisy, images)]
        turned = answers[0] != answers[1]
        raise NotYet(
            f"noise on the {mask.sum()} pixels of your mask changes what the network makes of "
            f"{np.mean(moved.max(axis=1) > 1e-5):.0%} of 40 images, and its answer for "
            f"{turned.mean():.0%}. Some of them do matter."
        )
    well_done(
        f"noise on all {mask.sum()} pixels of your mask, {mask.mean():.0%} of the image, changes "
        "nothing at all. (Whether there are more of them is for you to know.)"
    )


def silent(function, *, seed=0):
    """``function(maps)`` lists the filters that answer nothing, to any image, anywhere."""
    rng = np.random.default_rng(seed)
    for count, high, wide, filters in ((7, 5, 6, 9), (30, 4, 3, 14)):
        maps = np.maximum(rng.normal(size=(count, high, wide, filters)), 0).astype(np.float32)
        order = rng.permutation(filters)
        nothing, once, steady, faint = np.sort(order[:2]), order[2], order[3], order[4]
        maps[..., nothing] = 0
        maps[..., once] = 0
        maps[count - 1, high - 1, wide - 1, once] = 0.7  # one place in one image
        maps[..., steady] = 0.4
        maps[..., faint] *= 1e-4
        maps[0, :, :, order[5]] = 0
        found = as_array(call(function, maps), "the list")
        if np.array_equal(found, nothing):
            continue
        if found.shape == (filters,) and np.isin(found, (0, 1)).all():
            raise NotYet("list the numbers of the filters, not True or False for each.")
        if found.ndim != 1:
            raise NotYet(f"the list should have one axis, and it has shape {found.shape}.")
        for extra, hint in (
            (once, "a filter that answers in one place of one image is seldom heard, not dead"),
            (steady, "a filter that says the same everywhere says something; it is not zero"),
            (faint, "a filter with faint answers is not dead: its maps are not zero"),
            (order[5], "a filter that is silent on the first image may answer to others"),
        ):
            if extra in found:
                raise NotYet(f"your list has a filter too many: {hint}.")
        if np.array_equal(np.sort(found), nothing):
            raise NotYet("the right filters in another order. Sort them.")
        raise NotYet("your list is not that of the filters whose every answer is zero.")
    well_done("your function tells dead filters from seldom, steady and faint ones.")


def most_alike(function, *, seed=0):
    """``function(maps)`` is the pair (i, j), i < j, whose maps correlate most."""
    rng = np.random.default_rng(seed)
    for count, filters, dead in ((9, 8, 0), (25, 11, 2)):
        maps = np.maximum(rng.normal(size=(count, 5, 6, filters)), 0).astype(np.float32)
        i, j, a, b, *rest = rng.permutation(filters).tolist()
        i, j = sorted((i, j))
        maps[..., j] = 0.3 * maps[..., i] + 0.5  # another strength: not close, but alike
        maps[..., b] = maps[..., a] + rng.normal(0, 0.1, maps.shape[:3])  # close, and less alike
        maps[..., rest[0]] = 1 - maps[..., rest[1]]  # the opposite
        maps[..., rest[2 : 2 + dead]] = 0
        found = as_array(call(function, maps), "the pair")
        if found.shape != (2,):
            raise NotYet(f"the pair should be two numbers, and it has shape {found.shape}.")
        if np.array_equal(found, (i, j)):
            continue
        said = f"filters {found[0]:g} and {found[1]:g} of {filters} are not the most alike"
        if np.array_equal(found, (j, i)):
            raise NotYet("the right pair, in the other order: the smaller number first.")
        if found[0] == found[1]:
            raise NotYet("a filter is like itself; leave the diagonal out.")
        if set(found) & set(rest[2 : 2 + dead]):
            raise NotYet(
                f"{said}: one of them is dead. A map that never varies has no correlation (it is "
                "NaN, and argmax takes NaN for the largest)."
            )
        if set(found) == {rest[0], rest[1]}:
            raise NotYet(f"{said}: they are opposite. The sign of a correlation counts here.")
        if set(found) == {a, b}:
            raise NotYet(
                f"{said}: their values are close, but others follow each other more exactly. "
                "Correlation does not care for strength."
            )
        raise NotYet(f"{said}.")
    well_done("your function finds the pair, whatever the filters' strength, and past dead ones.")


def damage(dead, pair, model, *, seed=0):
    """Try the `dead` filters of conv_1 on new images, and let one of `pair` speak for the other."""
    filters = range(model.get_layer("conv_1").filters)
    dead = as_array(dead, "the list of dead filters").ravel().tolist()
    if not dead:
        raise NotYet("your list of dead filters is empty.")
    for n in dead:
        one_of(int(n) if n.is_integer() else n, filters, "a dead filter")
    pair = as_array(pair, "the pair").ravel().tolist()
    if len(pair) != 2 or pair[0] == pair[1]:
        raise NotYet("the pair should be two different filters.")
    for n in pair:
        one_of(int(n) if n.is_integer() else n, filters, "a filter of the pair")
    images = labs.make_stripes(300, seed=2000 + seed).images
    maps = inspection.feature_maps(model, images, "conv_1")
    for n in map(int, dead):
        if maps[..., n].any():
            heard = maps[..., n].any(axis=(1, 2)).mean()
            raise NotYet(
                f"filter {n} is alive: it answers to {heard:.0%} of 300 other images. How many "
                "images did you look at?"
            )
    i, j = map(int, pair)
    if not (np.ptp(maps[..., i]) and np.ptp(maps[..., j])):
        raise NotYet("one of your pair never answers anything. Copies of each other both speak.")
    factor = (maps[..., i] * maps[..., j]).sum() / (maps[..., i] ** 2).sum()
    rest = ((maps[..., j] - factor * maps[..., i]) ** 2).sum() / (maps[..., j] ** 2).sum()
    if rest > 1e-4:
        raise NotYet(
            "when the first of your pair speaks for the second, at the strength that fits best, "
            f"{rest:.1%} of what the second says is lost: they are not copies of each other."
        )
    gone = ", ".join(str(int(n)) for n in dead)
    well_done(f"{gone}: silent on 300 other images. {i} can speak for {j}, and nothing is lost.")


def blind_complete(mask, model, *, seed=0):
    """As `blind`; and the pixels that are not claimed must each matter to some image."""
    blind(mask, model, seed=seed)
    left = ~np.asarray(mask, bool)
    if (_reached(model, seed) < left).any():
        raise NotYet("the network is blind to more pixels than your mask claims.")


def _reached(model, seed):
    """Which pixels have a gradient to any of the features before the last layer."""
    features = keras.Model(model.inputs[0], model.layers[-2].output)
    pixels = tf.constant(labs.make_stripes(100, seed=3000 + seed).images)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        total = tf.reduce_sum(features(pixels, training=False))
    return np.abs(tape.gradient(total, pixels).numpy()).max(axis=(0, 3)) > 0


def damage_complete(dead, pair, model, *, seed=0):
    """As `damage`; and every filter that is dead must be in the list."""
    damage(dead, pair, model, seed=seed)
    maps = inspection.feature_maps(model, labs.make_stripes(600, seed=seed).images, "conv_1")
    if not (maps == 0).all(axis=(0, 1, 2)).sum() == len(np.unique(np.asarray(dead))):
        raise NotYet("there are more dead filters than you found.")
