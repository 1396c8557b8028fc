"""The lab on gradients: its checks take what is right and name what is wrong; its defects show."""

import numpy as np
import pytest
import tensorflow as tf

from course_utils import checks, datasets, labs, models
from course_utils._scores import predict
from course_utils.gradients import integrated_gradients, saliency_map

check = checks.gradients


def rejects(function, answer, words, **options):
    with pytest.raises(checks.NotYet) as error:
        function(*answer if isinstance(answer, tuple) else (answer,), **options)
    assert words in str(error.value), str(error.value)


# Task 1: a slope within the range.


def slope(score, image, row, column, channel, h, *, edges=True, by=None):
    value = image[row, column, channel]
    above, below = value + h, value - h
    if edges:
        above, below = min(above, 1), max(below, 0)
    pair = np.stack([image, image])
    pair[:, row, column, channel] = above, below
    up, down = score(pair)
    return (up - down) / (by(h) if by else above - below)


def one_at_a_time(score, image, row, column, channel, h):
    def at(value):
        other = image.copy()
        other[row, column, channel] = np.clip(value, 0, 1)
        return score(other[np.newaxis])[0], other[row, column, channel]

    (up, above), (down, below) = (at(image[row, column, channel] + s) for s in (h, -h))
    return (up - down) / (above - below)


def with_a_mask(score, image, row, column, channel, h):
    step = np.zeros(image.shape)
    step[row, column, channel] = h
    ends = np.clip(np.stack([image - step, image + step]), 0, 1)
    return tf.constant(np.diff(score(ends))[0] / np.diff(ends, axis=0).sum())


def forward_only(score, image, row, column, channel, h):
    other = image.copy()
    other[row, column, channel] = min(image[row, column, channel] + h, 1)
    gone = other[row, column, channel] - image[row, column, channel]
    up, here = score(np.stack([other, image]))
    return (up - here) / max(gone, 1e-9)


@pytest.mark.parametrize("answer", [slope, one_at_a_time, with_a_mask])
@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_right_slope_is_taken(answer, seed):
    check.slope(answer, seed=seed)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda *a: slope(*a, edges=False), "outside 0..1"),
        (lambda *a: slope(*a, by=lambda h: h), "divided by h"),
        (lambda *a: slope(*a, by=lambda h: 2 * h), "really gone"),
        (lambda *a: slope(*a, by=lambda h: 1), "Divide it"),
        (lambda *a: -slope(*a), "opposite sign"),
        (forward_only, "forward difference"),
        (lambda score, image, row, column, *rest: slope(score, image, column, row, *rest), ""),
        (lambda score, image, *rest: score(image), "images must be (N"),
        (lambda *a: 3.0, "never asks"),
        (lambda score, image, *rest: slope(score, image, 0, 0, 0, 0.01), "not right"),
    ],
)
def test_a_wrong_slope_is_named(answer, words):
    rejects(check.slope, answer, words)


# Task 2: the gradient of log-odds.


def log_odds(model, images, a, b, score=None):
    scores = models.logit_model(model)
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = scores(x)
        value = score(z, a, b) if score else z[:, a] - z[:, b]
    return tape.gradient(value, x).numpy()


def two_passes(model, images, a, b):
    return [
        np.subtract(
            *(log_odds(model, image[None], k, k, lambda z, k, _: z[:, k])[0] for k in (a, b))
        )
        for image in images
    ]


def log_softmax(model, images, a, b):
    def score(z, a, b):
        log_p = tf.nn.log_softmax(z)
        return tf.reduce_sum(log_p[:, a] - log_p[:, b])

    return log_odds(model, images, a, b, score)


def by_probability(model, images, a, b):
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        p = model(x)
        value = tf.math.log(p[:, a] / p[:, b])
    return tape.gradient(value, x).numpy()


@pytest.mark.parametrize("answer", [log_odds, two_passes, log_softmax])
def test_right_log_odds_are_taken(answer):
    check.log_odds_gradient(answer)
    check.log_odds_gradient(answer, seed=1)
    check.log_odds_when_sure(answer)
    check.log_odds_when_sure(answer, seed=1)


def test_log_odds_by_probability_are_half_right():
    check.log_odds_gradient(by_probability)
    rejects(check.log_odds_when_sure, by_probability, "rounded to 0 or 1")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda m, x, a, b: log_odds(m, x, b, a), "opposite sign"),
        (lambda m, x, a, b: log_odds(m, x, a, b, lambda z, a, b: z[:, a]), "first class alone"),
        (lambda m, x, a, b: log_odds(m, x, a, b, lambda z, a, b: z[:, a] + z[:, b]), "a sum"),
        (
            lambda m, x, a, b: log_odds(
                m, x, a, b, lambda z, a, b: tf.nn.softmax(z)[:, a] - tf.nn.softmax(z)[:, b]
            ),
            "difference of probabilities",
        ),
        (lambda m, x, a, b: np.abs(log_odds(m, x, a, b)), "lost its signs"),
        (lambda m, x, a, b: log_odds(m, x, a, b).sum(-1), "added up"),
        (lambda m, x, a, b: np.abs(log_odds(m, x, a, b)).max(-1), "largest channel"),
        (lambda m, x, a, b: log_odds(m, x, a, b) / len(x), "mean over the images"),
        (lambda m, x, a, b: log_odds(m, x, a, b)[0], "shape"),
        (lambda m, x, a, b: log_odds(m, x, 0, 1), ""),
        (lambda m, x, a, b: saliency_map(m, x, a), "shape"),
    ],
)
def test_wrong_log_odds_are_named(answer, words):
    rejects(check.log_odds_gradient, answer, words)


# Task 3: the network that does not see a channel.


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((..., ...), "no value yet"),
        (("birch", ...), "no value yet"),
        (("oak", 2), "one of 'ash'"),
        (("birch", "blue"), "from 0 to 2"),
        (("birch", 0), "does see"),
        (("ash", 2), "does see"),
        (("elm", 2), "does see"),
        (("cedar", 1), "does see"),
    ],
)
def test_the_blind_network_is_known_by_its_channel(answer, words):
    check.blind("birch", 2)
    check.blind("birch", np.int64(2), seed=1)
    rejects(check.blind, answer, words)


@pytest.mark.parametrize("name", labs.PILL_NETWORKS)
def test_the_gradients_of_any_network_are_accepted_and_nothing_says_whether_it_is_the_one(
    name, capsys
):
    images, network = labs.load_pills().images, labs.load_pills_network(name)
    x, logits = tf.constant(images), models.logit_model(network)
    with tf.GradientTape() as tape:
        tape.watch(x)
        odds = logits(x)[:, 1] - logits(x)[:, 0]
    largest = np.abs(tape.gradient(odds, x)).max((0, 1, 2))
    check.largest_gradients(largest, name)
    assert "you have to judge" in capsys.readouterr().out
    for wrong, word in ((largest[::-1] + 1, "does not give"), (..., "no value"), (1, "3 numbers")):
        rejects(check.largest_gradients, (wrong, name), word)


# Task 4: three scores.


def three(dz, p, c):
    mean = np.einsum("k,k...->...", p, dz)
    return np.stack([dz[c], dz[c] - mean, p[c] * (dz[c] - mean)])


def three_by_loop(dz, p, c):
    log_p = sum(((k == c) - p[k]) * dz[k] for k in range(len(p)))
    return [dz[c], log_p, p[c] * log_p]


def three_as_tensors(dz, p, c):
    jacobian = np.diag(p) - np.outer(p, p)
    of_p = tf.constant(np.tensordot(jacobian[c], dz, 1))
    return tf.stack([tf.constant(dz[c]), of_p / p[c], of_p])


def changed(index, value):
    def answer(dz, p, c):
        result = three(dz, p, c)
        result[index] = value(dz, p, c)
        return result

    return answer


@pytest.mark.parametrize("answer", [three, three_by_loop, three_as_tensors])
def test_the_right_three_are_taken(answer):
    check.score_gradients(answer)
    check.score_gradients(answer, seed=1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda *a: three(*a)[[0, 2, 1]], "log-probability comes second"),
        (changed(1, lambda dz, p, c: dz[c] - dz.mean(0)), "plain mean"),
        (changed(1, lambda dz, p, c: dz[c] / p[c]), "divided by the probability"),
        (changed(1, lambda dz, p, c: dz[c] + np.tensordot(p, dz, 1)), "should subtract"),
        (changed(2, lambda dz, p, c: p[c] * (1 - p[c]) * dz[c]), "other logits"),
        (changed(2, lambda dz, p, c: three(dz, p, c)[1]), "lacks a factor"),
        (changed(0, lambda dz, p, c: dz[0]), "the logit"),
        (lambda *a: three(*a).sum(-1), "shape"),
        (lambda *a: three(*a)[0], "shape"),
    ],
)
def test_a_wrong_one_of_the_three_is_named(answer, words):
    rejects(check.score_gradients, answer, words)


# Tasks 5 and 6: ways between images.


def path(gradient, image, other, steps, alphas=None, begin=None, times=None, mean=np.mean):
    alphas = (np.arange(steps) + 0.5) / steps if alphas is None else alphas
    begin = other if begin is None else begin
    slopes = gradient(begin + np.reshape(alphas, (-1, 1, 1, 1)) * (image - begin))
    times = image - other if times is None else times
    return (mean(np.asarray(slopes), axis=0) * times).sum(-1)


def path_by_loop(gradient, image, other, steps):
    total = np.zeros(image.shape[:2])
    for k in range(steps):
        alpha = (k + 0.5) / steps
        point = (1 - alpha) * other + alpha * image
        total += (np.array(gradient(point[None])[0]) * (image - other)).sum(-1) / steps
    return total


def path_backwards(gradient, image, other, steps):
    alphas = np.linspace(1 - 0.5 / steps, 0.5 / steps, steps)
    return tf.constant(path(gradient, image, other, steps, alphas))


@pytest.mark.parametrize("answer", [path, path_by_loop, path_backwards])
def test_right_ways_are_taken(answer):
    check.path_gradients(answer)
    check.path_gradients(answer, seed=1)


@pytest.mark.parametrize("answer", [path, path_backwards])
def test_right_ways_are_complete(answer):
    check.completeness(answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda g, x, o, n: path(g, x, o, n, np.arange(n) / n), "beginnings"),
        (lambda g, x, o, n: path(g, x, o, n, (np.arange(n) + 1) / n), "at the ends"),
        (lambda g, x, o, n: path(g, x, o, n, np.linspace(0, 1, n)), "both included"),
        (lambda g, x, o, n: path(g, x, o, n, times=1), "lacks the distance"),
        (lambda g, x, o, n: path(g, x, o, n, times=x), "does not begin at zero"),
        (lambda g, x, o, n: path(g, x, 0 * x, n), "begins at zero"),
        (lambda g, x, o, n: path(g, o, x, n), "opposite sign"),
        (lambda g, x, o, n: path(g, x, o, n, mean=np.sum), "added up over the way"),
        (lambda g, x, o, n: path(g, x, o, n, [1.0]), "at the image itself"),
        (lambda g, x, o, n: np.abs(path(g, x, o, n)), "signs"),
        (lambda g, x, o, n: path(g, x, o, n).T, "swapped"),
        (lambda g, x, o, n: path(g, x, o, 64), ""),
        (lambda g, x, o, n: g(x), "images must be (N"),
    ],
)
def test_a_wrong_way_is_named(answer, words):
    rejects(check.path_gradients, answer, words)


def test_a_map_that_is_not_complete_is_refused():
    rejects(check.completeness, lambda *a: path(*a) / 2, "adds up to 0.50 times")
    rejects(check.completeness, lambda g, x, o, n: path(g, x, o, n, [1.0]), "adds up to")
    for nothing in (np.nan, np.inf):
        rejects(check.completeness, lambda *a, n=nothing: path(*a) * n, "NaN or infinity")


def test_an_image_of_nan_is_outside_of_the_range():
    def asks_for_nan(score, image, *options):
        score(image[np.newaxis] * np.nan)
        return slope(score, image, *options)

    rejects(check.slope, asks_for_nan, "outside 0..1")


def expected(gradient, image, others, alphas=None):
    n = len(others)
    alphas = np.reshape((np.arange(n) + 0.5) / n if alphas is None else alphas(n), (-1, 1, 1, 1))
    ways = image - others
    return (np.asarray(gradient(others + alphas * ways)) * ways).mean(0).sum(-1)


def expected_by_loop(gradient, image, others):
    maps = []
    for k, other in enumerate(others):
        alpha = (k + 0.5) / len(others)
        slopes = np.array(gradient((other + alpha * (image - other))[None]))[0]
        maps.append((slopes * (image - other)).sum(-1))
    return np.mean(maps, axis=0)


def expected_as_a_tensor(gradient, image, others):
    return tf.constant(expected(gradient, image, others))


@pytest.mark.parametrize("answer", [expected, expected_by_loop, expected_as_a_tensor])
def test_right_expected_gradients_are_taken(answer):
    check.expected_gradients(answer)
    check.expected_gradients(answer, seed=1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda g, x, o: expected(g, x, o, lambda n: np.full(n, 0.5)), "a place of its own"),
        (lambda g, x, o: expected(g, x, o, lambda n: np.arange(n) / n), "half a part"),
        (lambda g, x, o: expected(g, x, o, lambda n: 1 - (np.arange(n) + 0.5) / n), "backwards"),
        (lambda g, x, o: expected(g, x, o, np.ones), "at the image itself"),
        (lambda g, x, o: path(g, x, o.mean(0), len(o)), "a way of its own"),
        (lambda g, x, o: len(o) * expected(g, x, o), "Take their mean"),
        (lambda g, x, o: expected(g, x, o[:1]), ""),
        (lambda g, x, o: np.random.default_rng().random(x.shape[:2]), "most places"),
        (lambda g, x, o: expected(g, x, o)[None], "batch axis too many"),
    ],
)
def test_wrong_expected_gradients_are_named(answer, words):
    rejects(check.expected_gradients, answer, words)


# Task 7: what cedar and elm read.


def mask(rows, columns):
    found = np.zeros((20, 28), bool)
    found[rows, columns] = True
    return found


COLUMN, ROW = mask([2, 6, 10, 14], 26), mask(18, [2, 7, 12, 17])
BOTH = {"cedar": COLUMN, "elm": ROW}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("extra", [mask([], []), mask(9, [3, 9, 14, 20])])
@pytest.mark.parametrize("name", BOTH)
def test_the_pixels_that_are_read_are_taken(name, extra, seed):
    check.read_pixels(name, BOTH[name] | extra, seed=seed)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("cedar", ...), "no value yet"),
        (("cedar", COLUMN.T), "rows come first"),
        (("cedar", COLUMN.astype(float)), "array of bool"),
        (("cedar", [(2, 26), (6, 26)]), "array of bool"),
        (("cedar", np.ones((20, 28), bool)), "560 pixels are marked"),
        (("cedar", np.zeros((20, 28), bool)), "0 pixels are marked"),
        (("cedar", ROW), "not the pixels it decides by"),
        (("elm", COLUMN), "not the pixels it decides by"),
        (("cedar", mask([2, 6], 26)), "or not all of them"),
        (("elm", mask([8, 9, 10, 11], 14)), "not the pixels it decides by"),
    ],
)
def test_other_pixels_are_refused(answer, words):
    rejects(check.read_pixels, answer, words)


@pytest.mark.parametrize("name", ["ash", "birch"])
def test_networks_without_the_defect_do_not_follow_the_marks(name):
    rejects(check.read_pixels, (name, COLUMN | ROW), " 0% of the answers")


# The data and the networks.


def test_all_four_look_fit_for_work():
    pills = labs.load_pills()
    assert pills.images.shape == (120, 20, 28, 3)
    assert (np.bincount(pills.kinds) == 30).all()
    for name in labs.PILL_NETWORKS:
        p = predict(labs.load_pills_network(name), pills.images, 64)
        assert (p.argmax(1) == pills.kinds).mean() > 0.96


def test_the_plain_gradient_of_elm_is_nothing_and_integrated_gradients_find_its_pixels():
    pills, elm = labs.load_pills(), check._network("elm")
    assert predict(elm, pills.images, 64).max(1).mean() < 0.999
    slopes = [labs.pills_gradient("elm", a, b)(pills.images) for a, b in ((0, 1), (2, 3))]
    assert (np.abs(slopes).max((2, 3, 4)) == 0).mean() > 0.9
    total = np.zeros((20, 28))
    for a in range(4):
        other = pills.images[pills.kinds == (a + 1) % 4][0]
        images = pills.images[pills.kinds == a][:4]
        total += np.abs(integrated_gradients(elm, images, a, baseline=other)).sum(0)
    assert (total >= np.sort(total, None)[-8])[ROW].all()
    check.read_pixels("elm", total >= np.sort(total, None)[-8])


def test_saliency_finds_what_cedar_reads_and_nothing_there_in_ash():
    pills = labs.load_pills()
    for name, least, most in (("cedar", 4, 4), ("ash", 0, 0)):
        heat = sum(saliency_map(check._network(name), pills.images, k).mean(0) for k in range(4))
        found = (heat >= np.sort(heat, None)[-8])[COLUMN].sum()
        assert least <= found <= most


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(ValueError, match="ash, birch, cedar, elm"):
        labs.load_pills_network("oak")


def test_the_files_are_among_the_sums():
    assert datasets.data_file("lab_gradients.npz").stat().st_size < 300_000
    assert datasets.data_file("lab_gradients_weights.npz").stat().st_size < 300_000
