"""The lab on Grad-CAM: its checks take what is right and name what is wrong; its defect shows."""

import functools
import warnings

import cv2
import numpy as np
import pytest
import tensorflow as tf

from course_utils import checks, datasets, inspection, labs, models
from course_utils._scores import predict
from course_utils.attack import randomize_layers
from course_utils.cam import grad_cam
from course_utils.metrics import mass_inside, rank_correlation

check = checks.grad_cam


def rejects(function, answer, words, **options):
    with pytest.raises(checks.NotYet) as error:
        function(*answer if isinstance(answer, tuple) else (answer,), **options)
    assert words in str(error.value), str(error.value)


# Task 1: what every cell adds to the logit.


def contributions(maps, weights, bias, target):
    cells = maps.shape[1] * maps.shape[2]
    return (maps @ weights[:, target] + bias[target]) / cells


def contributions_by_loop(maps, weights, bias, target):
    n, height, width, count = maps.shape
    found = np.full((n, height, width), bias[target] / (height * width))
    for k in range(count):
        found += maps[..., k] * weights[k, target] / (height * width)
    return found


def contributions_as_tensor(maps, weights, bias, target):
    summed = tf.linalg.matvec(tf.constant(maps), tf.constant(weights[:, target])[None])
    return tf.cast((summed + bias[target]) / maps[0, ..., 0].size, tf.float32)


@pytest.mark.parametrize("answer", [contributions, contributions_by_loop, contributions_as_tensor])
def test_right_contributions_are_taken(answer):
    for seed in range(3):
        check.contributions(answer, seed=seed)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda m, w, b, c: m @ w[:, c], "the class activation map"),
        (lambda m, w, b, c: (m @ w[:, c]).mean((1, 2)), "shape"),
        (lambda m, w, b, c: m @ w[:, c] / m[0, ..., 0].size, "lack the bias"),
        (lambda m, w, b, c: m @ w[:, c] / m[0, ..., 0].size + b[c], "the whole bias"),
        (lambda m, w, b, c: m @ w[:, c] + b[c], "their sum should be"),
        (lambda *a: contributions(*a).mean(0), "Each image has its own"),
        (lambda *a: np.maximum(contributions(*a), 0), "negative values"),
        (lambda *a: np.swapaxes(contributions(*a), 1, 2), "swapped"),
        (lambda *a: -contributions(*a), "opposite sign"),
        (lambda m, w, b, c: contributions(m, w, b, 0), "the contributions"),
    ],
)
def test_wrong_contributions_are_named(answer, words):
    for seed in range(3):  # a target may happen to be 0
        try:
            check.contributions(answer, seed=seed)
        except checks.NotYet:
            break
    rejects(check.contributions, answer, words, seed=seed)


# Task 2: Grad-CAM by hand.


def weighted(maps, gradients):
    return (maps * gradients.mean((1, 2), keepdims=True)).sum(-1)


def by_maximum(found):
    largest = found.max((1, 2), keepdims=True)
    return found / np.where(largest > 0, largest, 1)


def cam(maps, gradients):
    return by_maximum(np.maximum(weighted(maps, gradients), 0))


def cam_by_loop(maps, gradients):
    found = []
    for a, g in zip(maps, gradients, strict=True):
        one = np.maximum(a @ g.mean((0, 1)), 0)
        found.append(one / one.max() if one.max() > 0 else one)
    return found


def cam_as_tensor(maps, gradients):
    alpha = tf.reduce_mean(tf.constant(gradients), (1, 2))
    found = tf.nn.relu(tf.einsum("nhwk,nk->nhw", tf.constant(maps), alpha))
    return tf.math.divide_no_nan(found, tf.reduce_max(found, (1, 2), keepdims=True))


def cam_with_nan(maps, gradients):
    found = np.maximum(weighted(maps, gradients), 0)
    return found / found.max((1, 2), keepdims=True)


@pytest.mark.parametrize("answer", [cam, cam_by_loop, cam_as_tensor])
def test_right_maps_are_taken(answer):
    for seed in range(3):
        check.grad_cam_maps(answer, seed=seed)
        check.grad_cam_of_nothing(answer, seed=seed)


def test_a_division_by_zero_costs_half_and_prints_no_warning():
    check.grad_cam_maps(cam_with_nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rejects(check.grad_cam_of_nothing, cam_with_nan, "becomes NaN")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda a, g: by_maximum(np.maximum((a * g).sum(-1), 0)), "its own weight"),
        (lambda a, g: np.maximum(weighted(a, g), 0), "not divided"),
        (lambda a, g: np.maximum(weighted(a, g), 0) / weighted(a, g).max(), "one number"),
        (
            lambda a, g: weighted(a, g) / weighted(a, g).max((1, 2), keepdims=True),
            "negative values are still there",
        ),
        (lambda a, g: cam(a, np.abs(g)), "lost their signs"),
        (
            lambda a, g: by_maximum(np.maximum(a * g.mean((1, 2), keepdims=True), 0).sum(-1)),
            "Cut the sum off",
        ),
        (lambda a, g: by_maximum(np.abs(weighted(a, g))), "have become positive"),
        (lambda a, g: by_maximum(np.maximum(a @ g.mean((0, 1, 2)), 0)), "means over the images"),
        (lambda a, g: cam(a, g)[0], ""),
        (lambda a, g: np.swapaxes(cam(a, g), 1, 2), "swapped"),
        (lambda a, g: np.ones(a.shape[:3]), "the same everywhere"),
    ],
)
def test_a_wrong_map_is_named(answer, words):
    rejects(check.grad_cam_maps, answer, words)


# Task 3: for and against.


def pair(maps, gradients):
    found = weighted(maps, gradients)
    largest = np.abs(found).max((1, 2), keepdims=True)
    return np.stack([np.maximum(s * found, 0) for s in (1, -1)]) / np.where(largest > 0, largest, 1)


def pair_by_loop(maps, gradients):
    found = np.zeros((2, *maps.shape[:3]))
    for i in range(len(maps)):
        one = maps[i] @ gradients[i].mean((0, 1))
        if one.any():
            found[0, i], found[1, i] = one.clip(0) / abs(one).max(), (-one).clip(0) / abs(one).max()
    return found


def pair_as_tensors(maps, gradients):
    found = tf.constant(weighted(maps, gradients))
    both = tf.stack([tf.nn.relu(found), tf.nn.relu(-found)])
    return tf.math.divide_no_nan(both, tf.reduce_max(both, (0, 2, 3))[:, None, None])


@pytest.mark.parametrize("answer", [pair, pair_by_loop, pair_as_tensors])
def test_right_pairs_are_taken(answer):
    for seed in range(3):
        check.for_and_against(answer, seed=seed)


def raw(maps, gradients):
    found = weighted(maps, gradients)
    return np.stack([np.maximum(found, 0), np.maximum(-found, 0)])


def pair_with_nan(maps, gradients):
    found = raw(maps, gradients)
    return found / found.max((0, 2, 3))[:, None, None]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda a, g: np.stack([by_maximum(m) for m in raw(a, g)]), "its own maximum"),
        (lambda a, g: raw(a, g) / raw(a, g).max(), "one number"),
        (raw, "not divided"),
        (lambda a, g: pair(a, g)[::-1], "the second against"),
        (lambda a, g: pair(a, g) * np.array([1, -1])[:, None, None, None], "positive in its own"),
        (lambda a, g: np.swapaxes(pair(a, g), 0, 1), "The pair comes first"),
        (lambda a, g: pair(a, g)[0], "shape"),
        (pair_with_nan, "hold NaN"),
        (lambda a, g: pair(a, np.abs(g)), "the pair of maps"),
    ],
)
def test_a_wrong_pair_is_named(answer, words):
    rejects(check.for_and_against, answer, words)


# Task 4: where a cell lies.


def place(cell, grid, size, corners=False):
    cell, grid, size = (np.array(x) for x in (cell, grid, size))
    return cell * (size - 1) / (grid - 1) if corners else (cell + 0.5) * size / grid - 0.5


def place_by_hand(cell, grid, size, corners=False):
    found = []
    for c, g, s in zip(cell, grid, size, strict=True):
        found.append(c * (s - 1) / (g - 1) if corners else c * s / g + (s / g - 1) / 2)
    return tuple(found)


def place_by_interpolation(cell, grid, size, corners=False):
    ends = [(0, s - 1) if corners else (s / g / 2 - 0.5, s - s / g / 2 - 0.5)
            for g, s in zip(grid, size, strict=True)]  # fmt: skip
    return tf.constant([np.linspace(*e, g)[c] for e, g, c in zip(ends, grid, cell, strict=True)])


@pytest.mark.parametrize("answer", [place, place_by_hand, place_by_interpolation])
def test_right_places_are_taken(answer):
    for seed in range(2):
        check.cell_centres(answer, seed=seed)
        check.cell_corners(answer, seed=seed)


@pytest.mark.parametrize(
    ("function", "answer", "words"),
    [
        (check.cell_centres, lambda c, g, s, k: place(c, g, s, not k), "wrong way round"),
        (check.cell_corners, lambda c, g, s, k: place(c, g, s), "wrong way round"),
        (check.cell_centres, lambda c, g, s, k: place(c, g, s) + 0.5, "half a pixel"),
        (
            check.cell_centres,
            lambda c, g, s, k: np.array(c) * np.array(s) / np.array(g),
            "first pixel of the cell's square",
        ),
        (
            check.cell_centres,
            lambda c, g, s, k: np.array(c) * np.array(s) / np.array(g) - 0.5,
            "upper left corner of the cell",
        ),
        (
            check.cell_corners,
            lambda c, g, s, k: np.array(c) * np.array(s) / (np.array(g) - 1),
            "goes on to size",
        ),
        (check.cell_centres, lambda c, g, s, k: place(c, g, s, k)[::-1], "swapped"),
        (check.cell_corners, lambda c, g, s, k: place(c, g, s, k)[0], ""),
        (check.cell_corners, lambda c, g, s, k: np.round(place(c, g, s, k)), "the place"),
    ],
)
def test_a_wrong_place_is_named(function, answer, words):
    rejects(function, answer, words)


def test_the_two_customs_are_those_of_opencv_and_of_align_corners():
    """A peak in one cell lands where `cell_to_pixel` says, by a library that is not ours."""
    coarse = np.zeros((8, 16), np.float32)
    coarse[3, 5] = 1
    rows = cv2.resize(coarse, (64, 32), interpolation=cv2.INTER_LINEAR).sum(1)
    assert np.isclose(rows @ np.arange(32) / rows.sum(), place((3, 5), (8, 16), (32, 64))[0])


# Task 5: a nudge.


def nudge(gradient, classify, image, epsilon, *, way=np.sign, cut=True, halvings=7, sign=1):
    moves = sign * way(np.asarray(gradient(image[None]))[0])
    before = classify(image[None])[0]
    for k in range(halvings):
        nudged = image + epsilon / 2**k * moves
        nudged = np.clip(nudged, 0, 1) if cut else nudged
        if classify(nudged[None])[0] == before:
            return nudged
    return image.copy()


def nudge_all_at_once(gradient, classify, image, epsilon):
    steps = epsilon * 0.5 ** np.arange(7)[:, None, None, None]
    tries = np.clip(image + steps * np.sign(gradient(image[None])), 0, 1)
    tries = np.concatenate([tries, image[None]])
    said = classify(tries)
    return tries[np.argmax(said == said[-1])]


def nudge_as_tensor(gradient, classify, image, epsilon):
    way = tf.sign(tf.constant(np.array(gradient(image[None]))))
    before, step = int(classify(image[None])[0]), epsilon
    while step >= epsilon / 64:
        nudged = tf.clip_by_value(image[None] + step * way, 0.0, 1.0)
        if int(classify(nudged)[0]) == before:
            return nudged[0]
        step /= 2
    return tf.constant(image)


@pytest.mark.parametrize("answer", [nudge, nudge_all_at_once, nudge_as_tensor])
def test_a_right_nudge_is_taken(answer):
    for seed in range(3):
        check.nudge_step(answer, seed=seed)
        check.nudge_class(answer, seed=seed)


def in_place(gradient, classify, image, epsilon):
    image += epsilon * np.sign(gradient(image[None])[0])
    return np.clip(image, 0, 1)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda *a: nudge(*a, sign=-1), "down the gradient"),
        (lambda *a: nudge(*a, cut=False), "leaves the range"),
        (
            lambda g, c, x, e: np.clip(x + e * g(x[None])[0] / (1 + x.mean()), 0, 1),
            "sign alone",
        ),
        (lambda *a: nudge(*a, way=lambda g: np.where(g > 0, 1, -1)), "The sign of 0 is 0"),
        (lambda g, c, x, e: e * np.sign(g(x[None])[0]), "the change alone"),
        (lambda g, c, x, e: x.copy(), ""),
        (lambda g, c, x, e: nudge(g, c, x, e)[None], "batch axis too many"),
        (lambda g, c, x, e: nudge(g, c, x, 0.1), ""),
        (lambda g, c, x, e: g(x), "images must be (N"),
        (in_place, "changes the array"),
    ],
)
def test_a_wrong_step_is_named(answer, words):
    rejects(check.nudge_step, answer, words)


def halved_once_more(gradient, classify, image, epsilon):
    nudged = nudge(gradient, classify, image, epsilon)
    length = np.abs(nudged - image).max()
    return nudge(gradient, classify, image, length / 2) if length < epsilon * 0.9 else nudged


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda g, c, x, e: nudge(g, lambda y: np.zeros(len(y)), x, e), "class has changed"),
        (lambda *a: nudge(*a, halvings=1), "Halve it"),
        (lambda *a: nudge(*a, halvings=2), "Halve it"),
        (halved_once_more, "halved once more"),
        (lambda *a: nudge(*a, halvings=20), "shorter than a 64th"),
    ],
)
def test_a_nudge_that_changes_the_class_or_goes_too_short_is_named(answer, words):
    rejects(check.nudge_class, answer, words)


# Task 6: the explanation that does not listen.


def test_the_deaf_explanation_is_known():
    check.deaf("beryl")
    for name, words in (("amber", "do depend"), ("coral", "do depend"), (..., "no value yet")):
        rejects(check.deaf, name, words)
    rejects(check.deaf, "opal", "one of 'amber'")


def test_the_likeness_of_any_explainer_is_accepted_and_nothing_says_whether_it_is_right(capsys):
    tickets, network = labs.load_tickets(), check._network("quartz")
    some, blank = (
        (tickets.images[:20], tickets.shelves[:20]),
        randomize_layers(network, top=4, seed=0),
    )
    told = set()
    for name, explain in labs.TICKET_EXPLAINERS.items():
        alike = np.nanmean(rank_correlation(explain(network, *some), explain(blank, *some)))
        check.likeness(alike, name)
        told.add(capsys.readouterr().out)
        rejects(check.likeness, (alike + 0.1, name), "does not give")
    assert len(told) == 1


# Task 7: the shortcut.


@functools.cache
def kept(network, shelf):
    """The share of a shelf's tickets that is still read as it, with either half in black."""
    tickets, shares = labs.load_tickets(), []
    for part in (True, False):
        images = tickets.images[tickets.shelves == shelf].copy()
        images[tickets.shelf_masks[tickets.shelves == shelf] == part] = 0
        says = labs.load_tickets_network(network).predict(images, verbose=0).argmax(1)
        shares.append(np.mean(says == shelf))
    return tuple(shares)


def test_the_experiment_of_any_answer_is_accepted_and_nothing_says_whether_it_is_right(capsys):
    told = set()
    for answer in (("flint", 3), ("flint", 1), ("quartz", 0)):
        check.experiment(kept(*answer), *answer)
        told.add(capsys.readouterr().out)
        rejects(check.experiment, (np.subtract(1, kept(*answer)), *answer), "does not give")
    assert len(told) == 1
    assert np.subtract(*kept("flint", 3)) > 0.5


def test_each_shelf_has_a_coat_of_its_own():
    tickets = labs.load_tickets()
    pairs = {*zip(tickets.shelves.tolist(), tickets.coats.tolist(), strict=True)}
    assert len(pairs) == len({coat for _, coat in pairs}) == 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_shortcut_is_known(seed):
    check.suspect("flint", 3, seed=seed)
    check.companion("flint", 3, 8, seed=seed)


@pytest.mark.parametrize(
    ("function", "answer", "words"),
    [
        (check.suspect, (..., ...), "no value yet"),
        (check.suspect, ("opal", 3), "one of 'quartz'"),
        (check.suspect, ("flint", 7), "shelf_in_question should be a whole number from 0 to 4"),
        (check.companion, ("flint", 3, 2), "from 5 to 9"),
        *((check.suspect, ("flint", k), "does look at the digit") for k in (0, 1, 2, 4)),
        *((check.suspect, ("quartz", k), "does look at the digit") for k in range(5)),
        *((check.companion, ("flint", 3, c), "does not mean that shelf") for c in (5, 6, 7, 9)),
        (check.companion, ("quartz", 3, 8), "does not mean that shelf"),
        (check.companion, ("flint", 1, 8), "does not mean that shelf"),
    ],
)
def test_other_suspicions_are_refused(function, answer, words):
    rejects(function, answer, words)


# The data and the networks.


def test_both_networks_look_fit_for_work_and_only_one_map_is_on_the_wrong_half():
    tickets = labs.load_tickets()
    assert tickets.images.shape == (200, 32, 64, 1)
    assert (tickets.shelf_masks.sum((1, 2)) == 32 * 32).all()
    assert ((tickets.shelves == 3) == (tickets.coats == 8)).all()
    threes = tickets.shelves == 3
    mass = {}
    for name in labs.TICKET_NETWORKS:
        network = check._network(name)
        said = predict(network, tickets.images, 64).argmax(1)
        assert (said == tickets.shelves).mean() > 0.9
        maps = grad_cam(network, tickets.images, tickets.shelves)
        mass[name] = mass_inside(maps, tickets.shelf_masks)
    assert mass["flint"][threes].mean() < 0.4
    assert mass["quartz"][threes].mean() > 0.5
    for name in labs.TICKET_NETWORKS:
        assert mass[name][~threes].mean() > 0.6


def test_the_contributions_are_those_of_the_network():
    tickets, network = labs.load_tickets(), check._network("quartz")
    some = tickets.images[:5]
    maps = inspection.feature_maps(network, some, "conv_3")
    logits = models.logit_model(network)(some).numpy()
    weights, bias = network.get_layer("shelf").get_weights()
    for shelf in range(5):
        sums = contributions(maps, weights, bias, shelf).sum((1, 2))
        np.testing.assert_allclose(sums, logits[:, shelf], atol=1e-3)


def test_the_gradient_of_a_map_is_its_slope():
    rng = np.random.default_rng(0)
    network = check._network("flint")
    weights = network.get_layer("shelf").get_weights()[0][:, 2]
    image = rng.random((1, 32, 64, 1), np.float32)  # nowhere equal, or the pooling has no slope
    wanted = np.zeros((8, 16))
    wanted[4, 7], wanted[3, 9] = 1, -2
    slope = labs.ticket_map_gradient("flint", 2, wanted)(image)
    way = 1e-3 * slope / np.linalg.norm(slope)
    up, down = (
        ((inspection.feature_maps(network, image + s * way, "conv_3")[0] @ weights) * wanted).sum()
        for s in (1, -1)
    )
    assert np.isclose((up - down) / 2e-3, np.linalg.norm(slope), rtol=0.05)
    assert not slope[:, :, :10].any()  # far from both cells


def test_a_nudge_moves_the_map_and_a_random_step_does_not():
    tickets, network, rng = labs.load_tickets(), check._network("quartz"), np.random.default_rng(0)
    some, shelves, masks = (x[:20] for x in (tickets.images, tickets.shelves, tickets.shelf_masks))
    nudged, shaken = some.copy(), some.copy()

    def classify(x):
        return predict(network, np.float32(x), 1).argmax(1)

    for i, (image, shelf, mask) in enumerate(zip(some, shelves, masks, strict=True)):
        wanted = np.where(mask[::4, ::4], -1, 1)
        ways = labs.ticket_map_gradient("quartz", shelf, wanted), lambda x: rng.normal(size=x.shape)
        for images, way in zip((nudged, shaken), ways, strict=True):
            images[i] = nudge(way, classify, image, 0.1)
    before, after, control = (
        mass_inside(grad_cam(network, x, shelves), masks).mean() for x in (some, nudged, shaken)
    )
    assert before - after > 0.05
    assert abs(before - control) < 0.03


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(ValueError, match="quartz, flint"):
        labs.load_tickets_network("opal")


def test_the_files_are_small():
    for name in ("lab_grad_cam.npz", "lab_grad_cam_weights.npz"):
        assert datasets.data_file(name).stat().st_size < 300_000
