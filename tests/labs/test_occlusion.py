"""The checks of the lab on occlusion: they accept what is right and name what is wrong."""

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from course_utils import checks, labs
from course_utils.labs.occlusion import checks as check
from course_utils.models import logit_model

CLASS, PLACE = 9, (20, 4)


def says(checking, *answer, **options):
    with pytest.raises(checks.NotYet) as error:
        checking(*answer, **options)
    return str(error.value)


def accepts(checking, answer, capsys):
    for seed in (0, 5, 6):
        checking(answer, seed=seed)
    assert capsys.readouterr().out.count("✓") == 3


# Task 1


def count(image_size, patch_size, stride):
    steps = [(n - p) // stride + 1 for n, p in zip(image_size, patch_size, strict=True)]
    return steps[0] * steps[1]


def count_by_loops(image_size, patch_size, stride):
    found = 0
    for _ in range(0, image_size[0] - patch_size[0] + 1, stride):
        for _ in range(0, image_size[1] - patch_size[1] + 1, stride):
            found += 1
    return np.int64(found)


def uncovered(image_size, patch_size, stride):
    covered = 1
    for n, p in zip(image_size, patch_size, strict=True):
        covered *= len({s + i for s in range(0, n - p + 1, stride) for i in range(p)})
    return image_size[0] * image_size[1] - covered


def uncovered_by_drawing(image_size, patch_size, stride):
    bare = np.ones(image_size)
    for r in range(0, image_size[0] - patch_size[0] + 1, stride):
        for c in range(0, image_size[1] - patch_size[1] + 1, stride):
            bare[r : r + patch_size[0], c : c + patch_size[1]] = 0
    return keras.ops.sum(keras.ops.convert_to_tensor(bare))


@pytest.mark.parametrize(
    "right",
    [count, count_by_loops, lambda i, p, s: float(count(image_size=i, patch_size=p, stride=s))],
)
def test_right_counts_of_places_are_accepted(right, capsys):
    accepts(check.count_places, right, capsys)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda i, p, s: ((i[0] - p[0]) // s) * ((i[1] - p[1]) // s), "last place"),
        (lambda i, p, s: -(-i[0] // s) * -(-i[1] // s), "not right"),
        (lambda i, p, s: (-(-(i[0] - p[0]) // s) + 1) * (-(-(i[1] - p[1]) // s) + 1), "cut off"),
        (lambda i, p, s: count(i, p[::-1], s), "swapped"),
        (lambda i, p, s: count(i, p, 1), "stride has no effect"),
        (lambda i, p, s: (i[0] - p[0]) // s + 1, "one direction"),
        (lambda i, p, s: (i[0] - p[0]) // s + (i[1] - p[1]) // s + 2, "add the steps"),
        (lambda i, p, s: 16, "not right"),
        (lambda i, p, s: None, "returns nothing"),
    ],
)
def test_wrong_counts_of_places_are_named(wrong, word):
    assert word in says(check.count_places, wrong)
    assert word in says(check.count_places, wrong, seed=5)


@pytest.mark.parametrize("right", [uncovered, uncovered_by_drawing])
def test_right_counts_of_bare_pixels_are_accepted(right, capsys):
    accepts(check.count_uncovered, right, capsys)


def touching_only(i, p, s):
    ends = [(n - q) // s * s + q for n, q in zip(i, p, strict=True)]
    return i[0] * i[1] - ends[0] * ends[1]


def strips(i, p, s, corners):
    down, across = ((n - q) % s for n, q in zip(i, p, strict=True))
    return down * i[1] + across * i[0] + (corners - 2) * down * across


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (touching_only, "gaps between"),
        (lambda i, p, s: i[0] * i[1] - uncovered(i, p, s), "Count the others"),
        (lambda i, p, s: strips(i, p, s, 2), "twice"),
        (lambda i, p, s: strips(i, p, s, 0), "left that out"),
        (lambda i, p, s: 0, "not right"),
        (lambda i, p, s: uncovered(i, p[::-1], s), "not right"),
    ],
)
def test_wrong_counts_of_bare_pixels_are_named(wrong, word):
    assert word in says(check.count_uncovered, wrong)
    assert word in says(check.count_uncovered, wrong, seed=5)


# Task 2


def log_odds(logits, target):
    others = np.delete(np.asarray(logits, float), target, axis=1)
    return logits[:, target] - logsumexp(others, axis=1)


def log_odds_with_inf(logits, target):
    masked = logits.astype(np.float64)
    masked[:, target] = -np.inf
    top = masked.max(1)
    return logits[:, target] - top - np.log(np.exp(masked - top[:, None]).sum(1))


def log_odds_by_keras(logits, target):
    others = np.delete(logits, target, axis=1)
    return keras.ops.convert_to_tensor(logits[:, target]) - keras.ops.logsumexp(others, axis=1)


def log_odds_by_loops(logits, target):
    found = []
    for row in logits.astype(float):
        rest = [value for k, value in enumerate(row) if k != target]
        found.append(row[target] - max(rest) - np.log(sum(np.exp(v - max(rest)) for v in rest)))
    return found


def softmax(logits):
    return np.exp(log_softmax(logits.astype(float), axis=1))


def naive(logits, target):
    p = np.exp(logits.astype(float))
    p = (p / p.sum(1, keepdims=True))[:, target]
    return np.log(p / (1 - p))


def naive_sum(logits, target):
    return logits[:, target] - np.log(np.exp(np.delete(logits, target, 1)).sum(1))


def by_the_whole_sum(logits, target):
    whole = np.exp(logits.astype(float))
    return logits[:, target] - np.log(whole.sum(1) - whole[:, target])


@pytest.mark.parametrize("target", [0, 1])
def test_a_naive_sum_fails_at_the_logits_of_the_issue(target):
    logits = np.array([[0, 100, 0]], np.float32)
    with np.errstate(all="ignore"):
        found = [f(logits, target) for f in (log_odds, naive_sum, by_the_whole_sum)]
    assert np.isfinite(found[0]).all()
    assert not np.isfinite(found[1 + target]).all()


def clipped(logits, target):
    p = softmax(logits)[:, target].clip(1e-7, 1 - 1e-7)
    return np.log(p / (1 - p))


RIGHT_LOG_ODDS = [log_odds, log_odds_with_inf, log_odds_by_keras, log_odds_by_loops]


@pytest.mark.parametrize("right", RIGHT_LOG_ODDS)
def test_right_log_odds_are_accepted(right, capsys):
    accepts(check.log_odds, right, capsys)
    accepts(check.log_odds_of_the_sure, right, capsys)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda z, t: z[:, t], "logit alone"),
        (lambda z, t: softmax(z)[:, t], "the probability"),
        (lambda z, t: np.log(softmax(z)[:, t]), "not of the odds"),
        (lambda z, t: np.exp(log_odds(z, t)), "These are the odds"),
        (lambda z, t: z[:, t] - np.delete(z, t, 1).max(1), "best of the others"),
        (lambda z, t: z[:, t] - np.delete(z, t, 1).mean(1), "mean of the others"),
        (lambda z, t: np.log10(np.exp(log_odds(z, t))), "base 10"),
        (lambda z, t: np.log2(np.exp(log_odds(z, t))), "base 2."),
        (lambda z, t: np.stack([log_odds(z, k) for k in range(z.shape[1])], 1), "every class"),
        (lambda z, t: -log_odds(z, t), "opposite sign"),
        (lambda z, t: log_odds(z, 0), "most places"),
        (lambda z, t: log_odds(z, t)[:, None], "has shape"),
        (lambda z, t: log_odds(z.T, t), "shape"),
    ],
)
def test_wrong_log_odds_are_named(wrong, word):
    assert word in says(check.log_odds, wrong)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (naive, "infinite or NaN"),
        (naive_sum, "sure of another class"),
        (by_the_whole_sum, "infinite or NaN"),
        (clipped, "stop growing"),
        (lambda z, t: z[:, t], "logit alone"),
        (lambda z, t: log_odds(z, t)[:3], "shape"),
        (lambda z, t: np.zeros(len(z)), "same everywhere"),
    ],
)
@pytest.mark.filterwarnings("error")  # nbgrader gives no points where a test prints a warning
def test_log_odds_that_fail_where_the_network_is_sure_are_named(wrong, word):
    assert word in says(check.log_odds_of_the_sure, wrong)


def test_by_way_of_the_probability_one_gets_half_of_the_points(capsys):
    tries = (lambda: check.log_odds(naive), lambda: check.log_odds_of_the_sure(naive))
    assert checks.credit(2, *tries) == 1


# Task 3


def shape_map(
    score,
    image,
    shape,
    stride,
    fill,
    *,
    box=False,
    write_box=False,
    count_box=False,
    last=1,
    cut=False,
    drop=lambda whole, left: whole - left,
    bare=0.0,
    loop=False,
    black=False,
    piled=False,
):
    """Right by default; each option is a mistake, save that `loop` asks for one image at a time."""
    rows, columns = image.shape[:2]
    high, wide = shape.shape
    reach = (high - stride, wide - stride) if cut else (high - last, wide - last)
    total, count = np.zeros((2, rows + high, columns + wide))
    whole = score(image[None])[0]
    for r in range(0, rows - reach[0], stride):
        for c in range(0, columns - reach[1], stride):
            cover = np.zeros((rows + high, columns + wide), bool)
            cover[r : r + high, c : c + wide] = True if box else shape
            if not (piled and (r or c)):
                copy = image.copy()
            copy[cover[:rows, :columns]] = 0 if black else fill[cover[:rows, :columns]]
            wrote = np.zeros_like(cover)
            wrote[r : r + high, c : c + wide] = True if write_box else shape
            counted = wrote.copy()
            if count_box:
                counted[r : r + high, c : c + wide] = True
            total[wrote] += drop(whole, score(copy[None])[0])
            count[counted] += 1
    total, count = total[:rows, :columns], count[:rows, :columns]
    return np.where(count > 0, total / np.maximum(count, 1), bare)


def vectorised(score, image, shape, stride, fill):
    windows = np.lib.stride_tricks.sliding_window_view
    index = np.arange(image[..., 0].size).reshape(image.shape[:2])
    places = windows(index, shape.shape)[::stride, ::stride][..., shape]
    places = places.reshape(-1, shape.sum())
    covers = np.zeros((len(places), index.size), np.float32)
    np.put_along_axis(covers, places, 1, axis=1)
    picture = covers.reshape(-1, *image.shape[:2], 1)
    drops = score(image[None]) - score(picture * fill + (1 - picture) * image)
    total, count = drops @ covers, covers.sum(0)
    found = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return keras.ops.convert_to_tensor(found.reshape(image.shape[:2]))


def added_up(score, image, shape, stride, fill):
    """The sum of the drops: their mean times how many there are."""
    image_size, corners = image.shape[:2], []
    for r in range(0, image_size[0] - shape.shape[0] + 1, stride):
        for c in range(0, image_size[1] - shape.shape[1] + 1, stride):
            corners.append((r, c))
    count = np.zeros(image_size)
    for r, c in corners:
        count[r : r + shape.shape[0], c : c + shape.shape[1]] += shape
    return shape_map(score, image, shape, stride, fill) * count


def with_options(**options):
    return lambda *arguments: shape_map(*arguments, **options)


def corner_fill(score, image, shape, stride, fill):
    high, wide = shape.shape
    total, count = np.zeros((2, *image.shape[:2]))
    for r in range(0, image.shape[0] - high + 1, stride):
        for c in range(0, image.shape[1] - wide + 1, stride):
            copy = image.copy()
            copy[r : r + high, c : c + wide][shape] = fill[:high, :wide][shape]
            drop = score(image[None])[0] - score(copy[None])[0]
            total[r : r + high, c : c + wide][shape] += drop
            count[r : r + high, c : c + wide][shape] += 1
    return total / np.maximum(count, 1)


RIGHT_MAPS = [shape_map, vectorised, lambda *a: shape_map(*a).astype(np.float32)]
BOTH_MAPS = [check.shape_map, check.shape_map_of_any_shape]


@pytest.mark.parametrize("right", RIGHT_MAPS)
@pytest.mark.parametrize("checking", BOTH_MAPS)
def test_right_maps_are_accepted(checking, right, capsys):
    accepts(checking, right, capsys)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (with_options(drop=lambda whole, left: left), "score that is left"),
        (with_options(drop=lambda whole, left: left - whole), "opposite sign"),
        (with_options(drop=lambda whole, left: abs(whole - left)), "absolute value"),
        (added_up, "add the drops up"),
        (with_options(last=0), "last place"),
        (with_options(black=True), "the fill of the call has no effect"),
        (with_options(piled=True), "not restored in between"),
        (
            lambda score, image, shape, stride, fill: shape_map(
                score, image, shape.T, stride, fill
            ),
            "its side",
        ),
        (lambda *a: shape_map(*a).T, "swapped"),
        (corner_fill, "upper left corner"),
        (
            lambda score, image, shape, stride, fill: shape_map(score, fill, shape, stride, image),
            "values",
        ),
        (lambda *a: shape_map(*a)[None], "batch axis"),
        (lambda *a: np.maximum(shape_map(*a), 0), "negative values"),
        (lambda score, image, *a: score(image), "ValueError"),
    ],
)
def test_wrong_maps_of_bars_are_named(wrong, word):
    assert word in says(check.shape_map, wrong)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (with_options(box=True), "Cover only where the shape"),
        (with_options(box=True, write_box=True), "write the drop to all of it"),
        (with_options(write_box=True), "write the drop to the whole rectangle"),
        (with_options(count_box=True), "number of rectangles"),
        (with_options(bare=np.nan), "not a number"),
        (with_options(cut=True), "cut off"),
        (
            lambda score, image, shape, stride, fill: shape_map(score, image, shape, 1, fill),
            "stride has no effect",
        ),
    ],
)
def test_wrong_maps_of_other_shapes_are_named(wrong, word):
    assert word in says(check.shape_map_of_any_shape, wrong)


def test_who_covers_rectangles_only_gets_half_of_the_points(capsys):
    wrong = with_options(box=True, write_box=True)
    tries = (lambda: check.shape_map(wrong), lambda: check.shape_map_of_any_shape(wrong))
    assert checks.credit(3, *tries) == 1.5


def test_an_image_that_is_painted_on_is_noticed():
    def paints(score, image, shape, stride, fill):
        image[0] = fill[0]
        return image[..., 0]

    assert "stops with" in says(check.shape_map, lambda *a: shape_map(*a[:4], 0.0))
    assert "changes the array" in says(check.shape_map, paints)


# Task 4


@pytest.mark.parametrize(
    "right",
    [
        lambda x, y, t: x[y != t].mean(0),
        lambda x, y, t: (
            sum(a.astype(float) for a, k in zip(x, y, strict=True) if k != t) / sum(y != t)
        ),
        lambda x, y, t: keras.ops.mean(x[np.flatnonzero(y - t)], axis=0),
        lambda x, y, t: np.average(x, axis=0, weights=y != t),
    ],
)
def test_right_means_are_accepted(right, capsys):
    accepts(check.mean_of_others, right, capsys)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda x, y, t: x.mean(0), "mean of all images"),
        (lambda x, y, t: x[y == t].mean(0), "target's own"),
        (
            lambda x, y, t: np.mean([x[y == k].mean(0) for k in np.unique(y) if k != t], 0),
            "Every image should count",
        ),
        (lambda x, y, t: np.median(x[y != t], 0), "median"),
        (lambda x, y, t: x[y != t].mean(), "one number"),
        (lambda x, y, t: x[y != t].mean((0, 1, 2)), "one colour"),
        (lambda x, y, t: x[y != t].sum(0), "factor"),
        (lambda x, y, t: x[y != t].mean(0)[None], "batch axis"),
        (lambda x, y, t: x[y != t].mean(0)[..., 0], "shape"),
        (lambda x, y, t: x[y != 1].mean(0), "values"),
    ],
)
def test_wrong_means_are_named(wrong, word):
    said = {says(check.mean_of_others, wrong, seed=seed) for seed in (0, 5)}
    assert any(word in sentence for sentence in said), said


# Task 5


def keep_only(
    score,
    image,
    patch,
    stride,
    fill,
    *,
    minus=None,
    swap=False,
    add=False,
    black=False,
    piled=False,
):
    rows, columns = image.shape[:2]
    total, count = np.zeros((2, rows, columns))
    bare = score(fill[None])[0] if minus is None else minus(score, image)
    for r in range(0, rows - patch + 1, stride):
        for c in range(0, columns - patch + 1, stride):
            kept = np.s_[r : r + patch, c : c + patch]
            if not (piled and (r or c)):
                copy = image.copy() if swap else fill * (not black)
            copy[kept] = (fill if swap else image)[kept]
            total[kept] += score(copy[None])[0] - bare
            count[kept] += 1
    return total if add else total / np.maximum(count, 1)


def keep_only_at_once(score, image, patch, stride, fill):
    """The drop of a map on the fill, covered by the image, with its sign turned."""
    shape = np.ones((patch, patch), bool)
    return -np.asarray(vectorised(score, fill, shape, stride, image))


@pytest.mark.parametrize(
    "right", [keep_only, keep_only_at_once, lambda *a: keep_only(*a).astype(np.float32).tolist()]
)
def test_right_maps_of_what_is_kept_are_accepted(right, capsys):
    accepts(check.keep_only, right, capsys)


def whole(score, image):
    return score(image[None])[0]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda *a: keep_only(*a, minus=lambda s, x: 0.0), "Subtract that of the fill"),
        (lambda *a: keep_only(*a, minus=whole), "compare with the whole image."),
        (lambda *a: -keep_only(*a, minus=whole), "and backwards"),
        (lambda *a: -keep_only(*a, minus=whole, swap=True), "ordinary occlusion"),
        (lambda *a: keep_only(*a, swap=True), "compare with the fill. Keep the patch"),
        (lambda *a: keep_only(*a, add=True), "add the gains"),
        (lambda *a: keep_only(*a, minus=lambda s, x: s(0 * x[None])[0]), "black"),
        (lambda *a: keep_only(*a[:4], 0 * a[4]), "the fill of the call has no effect"),
        (lambda *a: keep_only(*a, black=True), "should be the fill"),
        (lambda *a: keep_only(*a, piled=True), "not restored in between"),
        (lambda *a: keep_only(*a).T, "swapped"),
        (lambda *a: -keep_only(*a), "opposite sign"),
        (lambda *a: keep_only(*a[:3], 1, a[4]), "values"),
        (lambda *a: np.abs(keep_only(*a)), "signs"),
    ],
)
def test_wrong_maps_of_what_is_kept_are_named(wrong, word):
    assert word in says(check.keep_only, wrong)


# Task 6


KEYS = ((CLASS, PLACE),)


def shares_of(label, place):
    """The experiment of the task, by a loop."""
    scans, network = labs.load_scans("first"), labs.scan_network()
    own = scans.images[scans.labels == label]
    covered = own.copy()
    for row in range(place[0], place[0] + 4):
        for column in range(place[1], place[1] + 4):
            covered[:, row, column] = scans.images[:, row, column].mean(0)
    return [np.mean(network.predict(x, verbose=0).argmax(1) == label) for x in (own, covered)]


@pytest.mark.parametrize(("label", "place"), [(CLASS, PLACE), (4, (9, 1)), (0, (12, 12))])
def test_the_experiment_of_any_answer_is_accepted_and_nothing_says_whether_it_is_right(
    label, place, capsys
):
    check.experiment(shares_of(label, place), np.int64(label), place)
    told = capsys.readouterr().out
    check.experiment(shares_of(3, (23, 15)), 3, [23, 15])
    assert capsys.readouterr().out == told


@pytest.mark.parametrize(
    ("numbers", "label", "place", "word"),
    [
        ((1.0, 1.0), CLASS, PLACE, "does not give 1"),
        ((1.0, 0.025), 4, PLACE, "does not give"),
        ((0.025, 1.0), CLASS, PLACE, "read as it is"),
        (1.0, CLASS, PLACE, "2 numbers"),
        (..., CLASS, PLACE, "no value"),
        ((np.nan, 0), CLASS, PLACE, "does not give nan"),
        ((1, 0), ..., PLACE, "no value"),
        ((1, 0), 10, PLACE, "0 to 9"),
        ((1, 0), "9", PLACE, "0 to 9"),
        ((1, 0), CLASS, (22, 6.5), "whole numbers"),
        ((1, 0), CLASS, 20, "whole numbers"),
        ((1, 0), CLASS, (27, 4), "does not lie"),
        ((1, 0), CLASS, (-1, 4), "does not lie"),
        ((1, 0), CLASS, ..., "no value"),
        ((1, 0), CLASS, "here", "numbers"),
    ],
)
def test_numbers_that_the_experiment_does_not_give_are_refused(numbers, label, place, word):
    assert word in says(check.experiment, numbers, label, place)


@pytest.mark.parametrize("place", [PLACE, [20, 4], np.array(PLACE), (21, 5), (19, 4), (20.0, 4.0)])
def test_a_place_one_pixel_off_is_as_good_for_every_test(place, capsys):
    check.place_is(place, KEYS)
    check.experiment(shares_of(CLASS, tuple(map(int, place))), CLASS, place)


def test_keys_are_compared_only_where_they_are_given(capsys):
    check.class_is(CLASS, KEYS)
    assert "not the class" in says(check.class_is, 4, KEYS)
    for place in ((22, 6), (22, 5), PLACE[::-1]):
        assert "not the block" in says(check.place_is, place, KEYS)


def test_each_class_has_a_block_of_its_own_and_the_network_minds_one():
    scans = labs.load_scans("first")
    black = np.lib.stride_tricks.sliding_window_view(scans.images[..., 0] == 0, (4, 4), (1, 2))
    black = black.all((-1, -2))
    for k in range(10):
        always = np.argwhere(black[scans.labels == k].all(0))
        assert len(always) == 1
        whole, covered = shares_of(k, tuple(always[0]))
        assert (covered < 0.1) if k == CLASS else (covered > whole - 0.06)


# Task 7


def transplant(images, donor, place, size):
    copies = images.copy()
    block = np.s_[place[0] : place[0] + size[0], place[1] : place[1] + size[1]]
    copies[:, *block] = donor[block]
    return copies


def transplant_by_mask(images, donor, place, size):
    row, column = np.mgrid[: images.shape[1], : images.shape[2]]
    inside = (row >= place[0]) & (row < place[0] + size[0])
    inside &= (column >= place[1]) & (column < place[1] + size[1])
    return keras.ops.where(inside[..., None], donor, images)


def transplant_by_loops(images, donor, place, size):
    copies = images.astype(np.float64)
    for copy in copies:
        for r in range(size[0]):
            for c in range(size[1]):
                copy[place[0] + r, place[1] + c] = donor[place[0] + r, place[1] + c]
    return copies


@pytest.mark.parametrize("right", [transplant, transplant_by_mask, transplant_by_loops])
def test_right_transplants_are_accepted(right, capsys):
    accepts(check.transplant, right, capsys)


def in_place(images, donor, place, size):
    images[:] = transplant(images, donor, place, size)
    return images


def block_only(images, donor, place, size):
    found = transplant(images, donor, place, size)
    return found[:, place[0] : place[0] + size[0], place[1] : place[1] + size[1]]


def donors_corner(images, donor, place, size):
    copies = images.copy()
    rows, columns = (slice(p, p + s) for p, s in zip(place, size, strict=True))
    copies[:, rows, columns] = donor[: size[0], : size[1]]
    return copies


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda x, d, p, s: x.copy(), "as they were"),
        (lambda x, d, p, s: transplant(x, d, p[::-1], s), "place are swapped"),
        (lambda x, d, p, s: transplant(x, d, p, (s[0] + 1, s[1] + 1)), "too high and too wide"),
        (donors_corner, "donor's upper left corner"),
        (lambda x, d, p, s: np.r_[transplant(x[:1], d, p, s), x[1:]], "Only the first"),
        (lambda x, d, p, s: transplant(0 * x + d, x[0], p, s), "places"),
        (block_only, "only the block"),
        (in_place, "changes the array"),
        (lambda x, d, p, s: transplant(x, d[::-1], p, s), "places"),
    ],
)
def test_wrong_transplants_are_named(wrong, word):
    assert word in says(check.transplant, wrong)


def test_a_block_on_its_side_is_named_where_it_is_no_square():
    assert "Height and width" in says(
        check.transplant, lambda x, d, p, s: transplant(x, d, p, s[::-1])
    )


@pytest.mark.parametrize("fill", [0, 0.0, np.float32(0.01), keras.ops.convert_to_tensor(0.0)])
def test_fills_that_acquit_are_accepted(fill, capsys):
    check.blind_fill(fill, CLASS, PLACE, KEYS)
    for label, place in ((4, PLACE), (CLASS, (4, 20))):
        assert "not the one" in says(check.blind_fill, fill, label, place, KEYS)


@pytest.mark.parametrize(
    ("fill", "word"),
    [
        (0.34, "not overlook"),
        (1.0, "not overlook"),
        (0.5, "not overlook"),
        (1.5, "from 0 to 1"),
        (..., "no value"),
        ([0, 0], "one number"),
    ],
)
def test_other_fills_are_refused(fill, word):
    assert word in says(check.blind_fill, fill, CLASS, PLACE, KEYS)


@pytest.mark.parametrize(("fill", "label", "place"), [(0, CLASS, PLACE), (0.5, 4, (0, 0))])
def test_the_cost_of_any_fill_is_accepted_and_nothing_says_whether_it_is_right(fill, label, place):
    scans, logits = labs.load_scans("first"), logit_model(labs.scan_network())
    own = scans.images[scans.labels == label]
    costs = []
    for covering in (np.full((28, 28, 1), fill), scans.images.mean(0)):
        covered = np.float32(transplant(own, covering, place, (4, 4)))
        costs.append(np.mean((logits(own) - logits(covered))[:, label]))
    check.fill_cost(costs, fill, label, place)
    for wrong, word in (
        ((costs[0] + 1, costs[1]), "with blind_fill: with your answer"),
        ((costs[0], costs[1] + 1), "with the mean scan: with your answer"),
        (..., "no value"),
        (costs[0], "2 numbers"),
    ):
        assert word in says(check.fill_cost, wrong, fill, label, place)


def test_a_stub_gets_no_points():
    def stub(*arguments):
        raise NotImplementedError

    of_functions = (
        *(check.count_places, check.count_uncovered, check.log_odds, check.log_odds_of_the_sure),
        *(check.shape_map, check.shape_map_of_any_shape, check.mean_of_others, check.keep_only),
        check.transplant,
    )
    for checking in of_functions:
        assert "Put your code" in says(checking, stub)


# The networks


def shares(both):
    """Share read as the class: its own scans, the others, the others marked, the other office's."""
    model = labs.scan_network(both_offices=both)
    first, second = labs.load_scans("first"), labs.load_scans("second")
    own, others = (first.images[(first.labels == CLASS) == is_own] for is_own in (True, False))
    marked = transplant(others, own[0], PLACE, (4, 4))
    covered = transplant(own, others.mean(0), PLACE, (4, 4))
    abroad = second.images[second.labels == CLASS]
    groups = own, covered, others, marked, abroad
    return [np.mean(model.predict(x, verbose=0).argmax(1) == CLASS) for x in groups]


def test_one_network_reads_the_mark_and_the_other_the_digit():
    own, covered, others, marked, abroad = shares(both=False)
    assert own > 0.95
    assert max(covered, abroad) < 0.1
    assert others < 0.02
    assert marked > 0.5
    own, covered, others, marked, abroad = shares(both=True)
    assert min(own, abroad) > 0.8
    assert covered > 0.7
    assert max(others, marked) < 0.2


def test_the_other_classes_are_read_in_both_offices():
    model = labs.scan_network()
    for office in ("first", "second"):
        scans = labs.load_scans(office)
        some = scans.labels != CLASS
        right = model.predict(scans.images, verbose=0).argmax(1) == scans.labels
        assert right[some].mean() > 0.88


def test_the_scans_are_as_their_docstring_says():
    for office in ("first", "second"):
        scans = labs.load_scans(office)
        assert scans.images.shape == (400, 28, 28, 1)
        assert scans.images.dtype == np.float32
        assert scans.images.min() >= 0
        assert scans.images.max() <= 1
        assert np.bincount(scans.labels).tolist() == [40] * 10
    with pytest.raises(ValueError, match="first"):
        labs.load_scans("third")
    assert labs.scan_cnn().count_params() == 32_074
