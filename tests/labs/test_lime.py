"""The checks of the lab on LIME: they accept what is right and name what is wrong."""

from functools import cache
from itertools import combinations, pairwise

import keras
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_distances

from course_utils import checks, labs
from course_utils.datasets import load_arrays
from course_utils.labs.lime import checks as check
from course_utils.lime_image import explain_image, superpixels

KIND, PART = "cone", "leaf"


def says(checking, *answer, **options):
    with pytest.raises(checks.NotYet) as error:
        checking(*answer, **options)
    return str(error.value)


def accepts(checking, answer, capsys):
    for seed in (0, 5, 6, 7):
        checking(answer, seed=seed)
    assert capsys.readouterr().out.count("✓") == 4


# Task 1


def draw_masks(samples, regions, keep, seed):
    masks = (np.random.default_rng(seed).random((samples, regions)) < keep).astype(int)
    masks[0] = 1
    return masks


def masks_of_old_numpy(samples, regions, keep, seed):
    np.random.seed(seed)  # noqa: NPY002
    rest = np.random.binomial(1, keep, (samples - 1, regions))  # noqa: NPY002
    return np.vstack([np.ones((1, regions)), rest])


def masks_of_keras(samples, regions, keep, seed):
    drawn = keras.random.uniform((samples, regions), seed=seed) < keep
    first = np.arange(samples)[:, None] == 0
    return keras.ops.logical_or(drawn, first)


def masks_by_choice(samples, regions, keep, seed):
    rng = np.random.default_rng(seed)
    rows = [rng.choice([0, 1], regions, p=[1 - keep, keep]) for _ in range(samples - 1)]
    return [[1] * regions, *(row.tolist() for row in rows)]


@pytest.mark.parametrize("right", [draw_masks, masks_of_old_numpy, masks_of_keras, masks_by_choice])
def test_right_masks_are_accepted(right, capsys):
    accepts(check.draw_masks, right, capsys)


def same_number(samples, regions, keep, seed):
    rng, masks = np.random.default_rng(seed), np.zeros((samples, regions), int)
    for row in masks:
        row[rng.permutation(regions)[: round(keep * regions)]] = 1
    masks[0] = 1
    return masks


def all_alike(samples, regions, keep, seed):
    masks = np.random.default_rng(seed).random((samples, 1)) < keep
    masks = np.repeat(masks, regions, axis=1)
    masks[0] = True
    return masks


def one_row(samples, regions, keep, seed):
    masks = np.repeat(np.random.default_rng(seed).random((1, regions)) < keep, samples, axis=0)
    masks[0] = True
    return masks


def unseeded(samples, regions, keep, seed):
    return draw_masks(samples, regions, keep, None)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda s, r, k, seed: draw_masks(s, r, 1 - k, seed), "show"),
        (lambda s, r, k, seed: draw_masks(s, r, 0.5, seed), "with keep=0.8"),
        (lambda s, r, k, seed: draw_masks(s + 1, r, k, seed)[1:], "first sample"),
        (lambda s, r, k, seed: draw_masks(s, r, k, 0), "another seed gives the same"),
        (unseeded, "the same seed gives other"),
        (same_number, "same number of regions"),
        (all_alike, "together"),
        (one_row, "far more often"),
        (lambda s, r, k, seed: draw_masks(r, s, k, seed).T, "far more often"),
        (lambda s, r, k, seed: draw_masks(r, s, k, seed), "swapped"),
        (lambda s, r, k, seed: draw_masks(s + 1, r, k, seed), "shape"),
        (lambda s, r, k, seed: np.random.default_rng(seed).random((s, r)), "zeros and ones"),
        (lambda s, r, k, seed: draw_masks(s, r, k if 0 < k < 1 else 0.5, seed), "keep=0.0"),
        (lambda s, r, k, seed: None, "returns nothing"),
    ],
)
def test_wrong_masks_are_named(wrong, word):
    assert word in says(check.draw_masks, wrong)
    assert word in says(check.draw_masks, wrong, seed=5)


def test_who_hides_with_the_probability_of_showing_is_told_so():
    swapped = lambda s, r, k, seed: draw_masks(s, r, 1 - k, seed)  # noqa: E731
    assert "you hide with it" in says(check.draw_masks, swapped)


# Task 2


def outside_means(image, segments):
    return np.stack([image[segments != k].mean(0) for k in range(segments.max() + 1)])


def outside_by_sums(image, segments):
    labels, count = segments.ravel(), np.bincount(segments.ravel())
    flat = image.reshape(-1, image.shape[-1]).astype(float)
    sums = np.zeros((len(count), image.shape[-1]))
    np.add.at(sums, labels, flat)
    return (flat.sum(0) - sums) / (len(flat) - count)[:, None]


def outside_by_keras(image, segments):
    others = keras.ops.cast(np.arange(segments.max() + 1)[:, None] != segments.ravel(), "float32")
    flat = image.reshape(-1, image.shape[-1])
    return keras.ops.matmul(others, flat) / keras.ops.sum(others, axis=1, keepdims=True)


@pytest.mark.parametrize("right", [outside_means, outside_by_sums, outside_by_keras])
def test_right_colours_are_accepted(right, capsys):
    accepts(check.outside_means, right, capsys)


def own_means(image, segments):
    return np.stack([image[segments == k].mean(0) for k in range(segments.max() + 1)])


def means_of_means(image, segments):
    own = own_means(image, segments)
    return np.stack([np.delete(own, k, 0).mean(0) for k in range(len(own))])


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (own_means, "own mean colour"),
        (lambda x, s: np.tile(x.mean((0, 1)), (s.max() + 1, 1)), "whole image"),
        (means_of_means, "superpixels' means"),
        (
            lambda x, s: np.stack(
                [(x * (s != k)[..., None]).mean((0, 1)) for k in range(s.max() + 1)]
            ),
            "number of all pixels",
        ),
        (lambda x, s: outside_means(x, s).mean(1), "one number"),
        (lambda x, s: outside_means(x, s).mean(1, keepdims=True) + 0 * own_means(x, s), "one grey"),
        (lambda x, s: outside_means(x, s)[s], "You give an image"),
        (lambda x, s: outside_means(x, s).T, "swapped"),
        (lambda x, s: outside_means(x, s)[:-1], "shape"),
        (lambda x, s: outside_means(x, s)[::-1], "rows in the opposite order"),
    ],
)
def test_wrong_colours_are_named(wrong, word):
    assert word in says(check.outside_means, wrong)
    assert word in says(check.outside_means, wrong, seed=5)


def perturb(image, segments, masks, colours):
    return np.where(masks[:, segments, None] == 1, image, colours[segments])


def perturb_by_loops(image, segments, masks, colours):
    found = []
    for mask in masks:
        copy = image.copy()
        for k in np.flatnonzero(mask == 0):
            copy[segments == k] = colours[k]
        found.append(copy)
    return found


def perturb_by_sums(image, segments, masks, colours):
    shown = keras.ops.cast(masks[:, segments][..., None], "float32")
    return shown * image + (1 - shown) * colours[segments]


@pytest.mark.parametrize("right", [perturb, perturb_by_loops, perturb_by_sums])
def test_right_images_are_accepted(right, capsys):
    accepts(check.perturb, right, capsys)


def on_one_copy(image, segments, masks, colours):
    found, copy = [], image.copy()
    for mask in masks:
        copy[mask[segments] == 0] = colours[segments][mask[segments] == 0]
        found.append(copy.copy())
    return np.stack(found)


def one_array(image, segments, masks, colours):
    copy, found = image.copy(), []
    for mask in masks:
        copy[:] = np.where(mask[segments][..., None] == 1, image, colours[segments])
        found.append(copy)
    return np.stack(found)


def on_the_image(image, segments, masks, colours):
    for mask in masks:
        image[mask[segments] == 0] = 0
    return image


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda x, s, m, c: perturb(x, s, 1 - m, c), "1 means shown"),
        (lambda x, s, m, c: perturb(x, s, m, 0 * c), "black"),
        (lambda x, s, m, c: perturb(x, s, m, own_means(x, s)), "own mean colour"),
        (lambda x, s, m, c: perturb(x, s, m, c[:1] + 0 * c), "of the first"),
        (lambda x, s, m, c: perturb(x, s, m, c.mean(0) + 0 * c), "have one colour"),
        (lambda x, s, m, c: perturb(x, s, m, c)[0], "one for each row"),
        (lambda x, s, m, c: perturb(x, s, m, c[::-1]), "places"),
        (lambda x, s, m, c: np.swapaxes(perturb(x, s, m, c), 1, 2), "Height comes before width"),
        (lambda x, s, m, c: perturb(x, s, m, c)[:, ::-1], "upside down"),
        (lambda x, s, m, c: perturb(x, s, m, c)[:, :, ::-1], "mirrored"),
        (on_one_copy, "fresh copy"),
        (one_array, "last mask"),
        (on_the_image, "changes the array"),
    ],
)
def test_wrong_images_are_named(wrong, word):
    assert word in says(check.perturb, wrong)
    assert word in says(check.perturb, wrong, seed=5)


# Task 3


def proximity(masks, sizes, width):
    return np.exp(-(((1 - np.sqrt(masks @ sizes / np.sum(sizes))) / width) ** 2))


def proximity_by_sklearn(masks, sizes, width):
    pixels = np.repeat(masks, sizes, axis=1)
    return np.exp(
        -np.square(cosine_distances(pixels, np.ones((1, pixels.shape[1]))))[:, 0] / width**2
    )


def proximity_by_loops(masks, sizes, width):
    found = []
    for mask in masks:
        row = np.concatenate([np.full(n, float(m)) for m, n in zip(mask, sizes, strict=True)])
        length = np.linalg.norm(row) * len(row) ** 0.5
        distance = 1 - row.sum() / length if length else 1.0
        found.append(float(np.exp(-(distance**2) / width**2)))
    return found


@pytest.mark.parametrize("right", [proximity, proximity_by_sklearn, proximity_by_loops])
def test_right_proximities_are_accepted(right, capsys):
    accepts(check.proximity, right, capsys)
    accepts(check.proximity_of_nothing, right, capsys)


def share(masks, sizes):
    return masks @ sizes / np.sum(sizes)


def squared_sizes(masks, sizes, width):
    rows = masks * sizes
    cosine = rows @ sizes / (np.linalg.norm(rows, axis=1) * np.linalg.norm(sizes))
    return np.exp(-(((1 - cosine) / width) ** 2))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda m, s, w: proximity(m, np.ones(len(s)), w), "You count superpixels"),
        (lambda m, s, w: proximity(m, s, w) ** 0.5, "square root around"),
        (lambda m, s, w: proximity(m, np.ones(len(s)), w) ** 0.5, "formula on superpixels"),
        (lambda m, s, w: np.exp(-(((1 - share(m, s)) / w) ** 2)), "square root of the share"),
        (lambda m, s, w: np.exp(-share(m, s) / w**2), "1 minus the cosine"),
        (lambda m, s, w: np.exp(-(1 - share(m, s) ** 0.5) / w**2), "do not square the distance"),
        (lambda m, s, w: np.exp(-(1 - share(m, s) ** 0.5) / w), "neither"),
        (lambda m, s, w: np.exp(-((1 - share(m, s) ** 0.5) ** 2) / w), "square the width"),
        (lambda m, s, w: 1 - share(m, s) ** 0.5, "This is the distance"),
        (lambda m, s, w: share(m, s) ** 0.5, "This is the cosine"),
        (lambda m, s, w: 1 / proximity(m, s, w), "sign"),
        (squared_sizes, "square of its pixels"),
        (lambda m, s, w: proximity(m, s, w) / proximity(m, s, w).sum(), "factor"),
        (lambda m, s, w: proximity(m, s, 0.25), "values"),
        (lambda m, s, w: proximity(m, s, w)[:, None], "shape"),
    ],
)
def test_wrong_proximities_are_named(wrong, word):
    assert word in says(check.proximity, wrong)


@pytest.mark.filterwarnings("error")  # nbgrader gives no points where a test prints a warning
def test_a_sample_that_shows_nothing_is_at_distance_one():
    def divides(masks, sizes, width):
        pixels = np.repeat(masks, sizes, axis=1).astype(float)
        cosine = pixels.sum(1) / (np.linalg.norm(pixels, axis=1) * pixels.shape[1] ** 0.5)
        return np.exp(-(((1 - cosine) / width) ** 2))

    tries = (lambda: check.proximity(divides), lambda: check.proximity_of_nothing(divides))
    assert checks.credit(2, *tries) == 1
    assert "divide by zero" in says(check.proximity_of_nothing, divides)
    zero = lambda m, s, w: np.where(m.any(1), proximity(m, s, w), 0)  # noqa: E731
    assert "where little" in says(check.proximity_of_nothing, zero)


# Task 4


def fit(masks, scores, proximity, ridge, *, free=True, ones=True):
    rows = np.hstack([np.full((len(masks), 1), float(ones)), masks])
    penalty = ridge * np.eye(rows.shape[1])
    penalty[0, 0] = 0 if free and ones else ridge or 1e-9
    left = (rows.T * proximity) @ rows + penalty
    beta = np.linalg.lstsq(left, (rows.T * proximity) @ scores)[0]
    return beta[1:], beta[0]


def fit_by_sklearn(masks, scores, proximity, ridge):
    found = Ridge(alpha=ridge).fit(masks, scores, sample_weight=proximity)
    return found.coef_.reshape(scores.shape[1], -1).T, np.reshape(found.intercept_, -1)


def fit_by_augmented_rows(masks, scores, proximity, ridge):
    root = np.sqrt(proximity)[:, None]
    rows = np.hstack([np.ones((len(masks), 1)), masks]) * root
    extra = np.sqrt(ridge) * np.eye(rows.shape[1])[1:]
    values = np.vstack([scores * root, np.zeros((len(extra), scores.shape[1]))])
    beta = np.linalg.lstsq(np.vstack([rows, extra]), values)[0]
    return [keras.ops.convert_to_tensor(beta[1:].astype(np.float32)), beta[0].tolist()]


def fit_centred(masks, scores, proximity, ridge):
    middle = np.average(masks, axis=0, weights=proximity)
    mean = np.average(scores, axis=0, weights=proximity)
    rows = masks - middle
    left = (rows.T * proximity) @ rows + ridge * np.eye(rows.shape[1])
    weights = np.linalg.solve(left, (rows.T * proximity) @ (scores - mean))
    return weights, mean - middle @ weights


@pytest.mark.parametrize("right", [fit, fit_by_sklearn, fit_by_augmented_rows, fit_centred])
def test_right_fits_are_accepted(right, capsys):
    accepts(check.fit, right, capsys)
    accepts(check.fit_of_few, right, capsys)


def plain_means(masks, scores, proximity, ridge):
    rows, values = masks - masks.mean(0), scores - scores.mean(0)
    left = (rows.T * proximity) @ rows + ridge * np.eye(rows.shape[1])
    weights = np.linalg.solve(left, (rows.T * proximity) @ values)
    return weights, scores.mean(0) - masks.mean(0) @ weights


def one_sided(masks, scores, proximity, ridge):
    rows = np.hstack([np.ones((len(masks), 1)), masks])
    penalty = ridge * np.diag([0.0] + [1.0] * masks.shape[1])
    beta = np.linalg.solve(rows.T @ rows + penalty, (rows.T * proximity) @ scores)
    return beta[1:], beta[0]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda m, y, p, r: fit(m, y, np.ones(len(p)), r), "all count the same"),
        (lambda m, y, p, r: fit(m, y, p**2, r), "counts twice"),
        (lambda m, y, p, r: fit(m, y, p**0.5, r), "square root of the proximity"),
        (lambda m, y, p, r: fit(m, y, p, r, free=False), "penalise the intercept"),
        (lambda m, y, p, r: fit(m, y, p, r, ones=False), "no intercept"),
        (lambda m, y, p, r: fit(m, y, p, 0), "ridge is missing"),
        (lambda m, y, p, r: fit(m, y, p, r**2), "ridge is squared"),
        (lambda m, y, p, r: fit(m, y, p, r * len(p)), "number of samples"),
        (one_sided, "one side"),
        (plain_means, "weighted ones"),
        (lambda m, y, p, r: fit(m, y, p, r)[::-1], "weights come first"),
        (lambda m, y, p, r: fit(m, y, p, r)[0], "return two things"),
        (lambda m, y, p, r: (fit(m, y, p, r)[0].T, fit(m, y, p, r)[1]), "swapped"),
        (lambda m, y, p, r: (fit(m, y, p, r)[0], y.mean(0)), "mean score"),
        (
            lambda m, y, p, r: (fit(m, y, p, r)[0], sum(fit(m, y, p, r)[0]) + fit(m, y, p, r)[1]),
            "all is shown",
        ),
        (lambda m, y, p, r: (fit(m, y, p, r)[0][:, 0], fit(m, y, p, r)[1]), "every class"),
        (lambda m, y, p, r: (np.vstack(fit(m, y, p, r)[::-1]), fit(m, y, p, r)[1]), "apart"),
        (lambda m, y, p, r: (np.abs(fit(m, y, p, r)[0]), fit(m, y, p, r)[1]), "signs"),
    ],
)
def test_wrong_fits_are_named(wrong, word):
    assert word in says(check.fit, wrong)
    assert word in says(check.fit, wrong, seed=5)


def test_an_inverse_that_does_not_exist_is_named_with_its_line():
    def inverts(m, y, p, r):
        rows = np.hstack([np.ones((len(m), 1)), m])
        beta = np.linalg.inv((rows.T * p) @ rows) @ (rows.T * p) @ y
        return beta[1:], beta[0]

    with pytest.raises(checks.NotYet):
        check.fit_of_few(inverts)


# Task 5


def top_regions(weights, segments, k):
    best = np.argsort(-weights)[:k]
    return np.isin(segments, best[weights[best] > 0])


def top_by_loops(weights, segments, k):
    mask = np.zeros(segments.shape)
    for region in sorted(range(len(weights)), key=lambda r: weights[r])[-k:]:
        if weights[region] > 0:
            mask[segments == region] = 1
    return mask


def top_by_rank(weights, segments, k):
    rank = np.argsort(np.argsort(weights))
    chosen = (rank >= len(weights) - k) & (weights > 0)
    return keras.ops.convert_to_tensor(chosen[segments])


@pytest.mark.parametrize("right", [top_regions, top_by_loops, top_by_rank])
def test_right_regions_are_accepted(right, capsys):
    accepts(check.top_regions, right, capsys)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda w, s, k: np.isin(s, np.argsort(-np.abs(w))[:k]), "largest absolute values"),
        (lambda w, s, k: np.isin(s, np.argsort(w)[:k]), "begins with them"),
        (lambda w, s, k: np.isin(s, np.argsort(-w)[:k]), "fill up with negative"),
        (lambda w, s, k: top_regions(w, s, k + 1), "one too many"),
        (lambda w, s, k: top_regions(w, s, k - 1), "one too few"),
        (lambda w, s, k: w[s] > 0, "every superpixel with a positive"),
        (
            lambda w, s, k: np.isin(s, np.argsort(-np.bincount(s.ravel()))[:k]),
            "Go by their weights",
        ),
        (lambda w, s, k: ~top_regions(w, s, k), "where it should be False"),
        (lambda w, s, k: top_regions(w, s, k) * w[s], "Give a mask"),
        (lambda w, s, k: np.argsort(-w)[:k], "shape"),
    ],
)
def test_wrong_regions_are_named(wrong, word):
    assert word in says(check.top_regions, wrong)


@pytest.mark.parametrize(
    "right",
    [
        lambda m, t: (m & t).sum() / max(m.sum(), 1),
        lambda m, t: float(t[m].mean()) if m.any() else 0.0,
        lambda m, t: keras.ops.convert_to_tensor(np.sum(m * t) / (np.sum(m) or 1)),
    ],
)
def test_right_shares_are_accepted(right, capsys):
    accepts(check.share_on, right, capsys)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda m, t: (m & t).sum() / t.sum(), "share of the truth"),
        (lambda m, t: (m & t).sum() / (m | t).sum(), "over the union"),
        (lambda m, t: (m & t).mean(), "all pixels"),
        (lambda m, t: (m & t).sum(), "how many pixels"),
        (lambda m, t: (m == t).mean(), "two agree"),
        (lambda m, t: np.divide((m & t).sum(), m.sum()), "empty mask"),
        (lambda m, t: 0.5, "not right"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_wrong_shares_are_named(wrong, word):
    assert word in says(check.share_on, wrong)


# Task 6


def jaccard(a, b):
    return len(a & b) / len(a | b)


def tops_of(explain, seeds, k):
    return [set(np.argsort(-explain(seed))[:k].tolist()) for seed in seeds]


def stability(explain, seeds, k):
    return np.mean([jaccard(a, b) for a, b in combinations(tops_of(explain, seeds, k), 2)])


def stability_by_matrix(explain, seeds, k):
    runs = np.stack([explain(seed) for seed in seeds])
    chosen = (np.argsort(np.argsort(-runs)) < k).astype(float)
    both = chosen @ chosen.T
    table = both / (2 * k - both)
    return (table.sum() - len(runs)) / (len(runs) * (len(runs) - 1))


def stability_by_loops(explain, seeds, k):
    found, tops = [], tops_of(explain, seeds, k)
    for i in range(len(tops)):
        for j in range(len(tops)):
            if i != j:
                found.append(jaccard(tops[i], tops[j]))
    return keras.ops.mean(np.float32(found))


@pytest.mark.parametrize("right", [stability, stability_by_matrix, stability_by_loops])
def test_right_stabilities_are_accepted(right, capsys):
    accepts(check.stability, right, capsys)


def over(pairs_of, score=jaccard, transform=lambda w: w):
    def wrong(explain, seeds, k):
        tops = tops_of(lambda seed: transform(explain(seed)), seeds, k)
        return np.mean([score(a, b) for a, b in pairs_of(tops)])

    return wrong


PAIRS = lambda tops: combinations(tops, 2)  # noqa: E731


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (over(lambda tops: [(a, b) for a in tops for b in tops]), "itself as well"),
        (over(lambda t: [(t[i], t[j]) for i in range(len(t)) for j in range(i + 1)]), "themselves"),
        (over(PAIRS, lambda a, b: len(a & b) / len(a)), "share by k"),
        (lambda e, s, k: jaccard_of_all(tops_of(e, s, k)), "all runs have in common"),
        (over(pairwise), "the next one only"),
        (over(lambda tops: [(tops[0], b) for b in tops[1:]]), "the first one only"),
        (over(PAIRS, transform=np.abs), "largest absolute"),
        (over(PAIRS, transform=np.negative), "smallest weights"),
        (over(PAIRS, lambda a, b: 1 - jaccard(a, b)), "differ"),
        (lambda e, s, k: stability(e, [s[0]] * len(s), k), "one and the same seed"),
        (lambda e, s, k: stability(e, range(len(s) + 1), k), "seeds that came"),
        (lambda e, s, k: stability(e, s, 5), "not right"),
        (lambda e, s, k: np.corrcoef([e(one) for one in s]), "shape"),
    ],
)
def test_wrong_stabilities_are_named(wrong, word):
    said = {says(check.stability, wrong, seed=seed) for seed in (0, 5)}
    assert any(word in sentence for sentence in said), said


def jaccard_of_all(tops):
    return len(set.intersection(*tops)) / len(set.union(*tops))


# Task 7


@cache
def shares_with(kind, part):
    """The experiment of the task: the share read with nothing about it, and with the part."""
    index, shares = labs.MUSHROOMS.index(kind), []
    for there in (False, True):
        things = np.zeros((40, 4), bool)
        things[:, labs.MEADOW_PARTS.index(part) - 2] = there
        images = labs.draw_meadows([index] * 40, things, seed=5).images
        shares.append(np.mean(np.asarray(labs.meadow_network()(images)).argmax(1) == index))
    return tuple(shares)


def test_the_experiment_of_any_answer_is_accepted_and_nothing_says_whether_it_is_right(capsys):
    told = set()
    for kind, part in ((KIND, PART), ("dome", "stone"), (KIND, "snail")):
        check.experiment(shares_with(kind, part), kind, part)
        told.add(capsys.readouterr().out)
    assert len(told) == 1
    own, other = shares_with(KIND, PART), shares_with("dome", PART)
    assert own[0] < 0.1 < 0.9 < own[1]
    assert "does not give" in says(check.experiment, own, "dome", PART)
    assert "does not give" in says(check.experiment, other, KIND, PART)
    for part in labs.MEADOW_PARTS[:2]:
        assert "every drawing" in says(check.experiment, own, KIND, part)


@pytest.mark.parametrize("value", [..., None, 1, "Cone", "cap", ["cone"]])
def test_an_answer_that_is_none_is_refused(value):
    for answer in ((value, PART), (KIND, value)):
        said = says(check.experiment, (0, 1), *answer)
        assert "no value" in said or "one of" in said


def test_keys_are_compared_only_where_they_are_given(capsys):
    check.answer_is(KIND, (KIND,))
    for value in ("dome", ..., None):
        assert "not what" in says(check.answer_is, value, (KIND,))


def test_each_kind_has_a_thing_of_its_own_and_the_network_minds_one():
    arrays = load_arrays("lab_lime.npz")
    labels, things = arrays["labels"][0], arrays["things"][0]
    own = [
        next(t for t in range(4) if np.array_equal(things[:, t], labels == kind))
        for kind in range(3)
    ]
    assert len(set(own)) == 3
    for kind, thing in zip(labs.MUSHROOMS, own, strict=True):
        without, with_it = shares_with(kind, labs.MEADOW_PARTS[thing + 2])
        assert (without < 0.1) if kind == KIND else (without > 0.9)
        assert with_it > 0.9


def test_a_stub_gets_no_points():
    def stub(*arguments):
        raise NotImplementedError

    of_functions = (
        *(check.draw_masks, check.outside_means, check.perturb, check.proximity),
        *(check.proximity_of_nothing, check.fit, check.fit_of_few, check.top_regions),
        *(check.share_on, check.stability),
    )
    for checking in of_functions:
        assert "Put your code" in says(checking, stub)


# The networks


def read_as_kind(many, there):
    """Share that a network reads as the kind with or without the part: its own, and others."""
    labels, things = np.arange(90) % 3, np.random.default_rng(11).random((90, 4)) < 0.5
    things[:, labs.MEADOW_PARTS.index(PART) - 2] = there
    images = labs.draw_meadows(labels, things, seed=11).images
    says_kind = np.asarray(labs.meadow_network(many_collectors=many)(images)).argmax(1) == 1
    return says_kind[labels == 1].mean(), says_kind[labels != 1].mean()


def test_one_network_goes_by_the_part_and_the_other_by_the_mushroom():
    own, others = read_as_kind(many=False, there=False)
    assert max(own, others) < 0.1
    own, others = read_as_kind(many=False, there=True)
    assert own > 0.95
    assert others > 0.8
    for there in (False, True):
        own, others = read_as_kind(many=True, there=there)
        assert own > 0.85
        assert others < 0.1


def share_of_weight(many, fill):
    """Share of the kind's positive weight that lies on the part, in six drawings."""
    meadows = labs.load_meadows()
    network, total = labs.meadow_network(many_collectors=many), np.zeros(6)
    for i in np.flatnonzero(meadows.labels == 1)[:6]:
        image, cut = meadows.images[i], superpixels(meadows.images[i], "slic", 40)
        colour = fill or image.mean((0, 1))
        found = explain_image(
            network, image, 1, segments=cut, samples=300, fill=colour, score="logit"
        )
        positive = np.maximum(found.weights, 0)[cut].ravel()
        total += np.bincount(meadows.parts[i].ravel(), positive, minlength=6)
    return (total / total.sum())[labs.MEADOW_PARTS.index(PART)]


def test_lime_finds_the_part_with_one_fill_and_not_with_the_packages_own():
    assert share_of_weight(many=False, fill=None) > 0.35
    assert share_of_weight(many=False, fill="mean") < 0.15
    assert share_of_weight(many=True, fill=None) < 0.05


def test_the_meadows_are_as_their_docstring_says():
    meadows = labs.load_meadows()
    assert meadows.images.shape == (90, 48, 48, 3)
    assert meadows.images.dtype == np.float32
    assert 0 <= meadows.images.min() < meadows.images.max() <= 1
    assert np.bincount(meadows.labels).tolist() == [30] * 3
    assert set(np.unique(meadows.parts)) == set(range(6))
    right = np.asarray(labs.meadow_network()(meadows.images)).argmax(1) == meadows.labels
    assert right.mean() > 0.97
    assert labs.meadow_cnn().count_params() == 39_891


def test_a_thing_more_or_less_changes_nothing_else():
    labels, things = np.arange(12) % 3, np.random.default_rng(0).random((12, 4)) < 0.5
    for thing in range(4):
        without, with_it = things.copy(), things.copy()
        without[:, thing], with_it[:, thing] = False, True
        one, other = (labs.draw_meadows(labels, t, seed=4) for t in (without, with_it))
        changed = (one.images != other.images).any(-1)
        assert changed.any((1, 2)).all()
        # A pixel at its edge may show a little of it and count as something else.
        grown = np.stack(
            [
                np.roll(other.parts == thing + 2, (r, c), (1, 2))
                for r in (-1, 0, 1)
                for c in (-1, 0, 1)
            ]
        ).any(0)
        assert not (changed & ~grown).any()
    again = labs.draw_meadows(labels, things, seed=4)
    assert np.array_equal(again.images, labs.draw_meadows(labels, things, seed=4).images)
