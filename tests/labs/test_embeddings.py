"""The lab on embeddings: its checks take what is right, say what is wrong; what is odd shows."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from course_utils import checks, datasets, embedding, labs
from course_utils.labs.embeddings import checks_of_ascent as climbs
from course_utils.models import logit_model

check = checks.embeddings


@pytest.fixture(scope="module")
def network():
    return labs.load_post_network()


@pytest.fixture(scope="module")
def reviewed():
    return labs.load_post_digits("reviewed")


@pytest.fixture(scope="module")
def truth(reviewed):
    (a, b), (c, d) = datasets.load_digits()
    pairs = [*zip(a, b, strict=True), *zip(c, d, strict=True)]
    known = {image.tobytes(): label for image, label in pairs}
    return np.array([known[image.tobytes()] for image in reviewed.images])


def pool(model, images, layer):
    part = keras.Model(model.inputs[0], model.get_layer(layer).output)
    maps = np.asarray(part(images, training=False))
    return np.hstack([maps.mean(axis=(1, 2)), maps.max(axis=(1, 2))])


def pool_in_batches(model, images, layer):
    return [pool(model, image[None], layer)[0].tolist() for image in images]


def pool_tensor(model, images, layer):
    maps = keras.Model(model.inputs[0], model.get_layer(layer).output)(images)
    return tf.concat([tf.reduce_mean(maps, [1, 2]), tf.reduce_max(maps, [1, 2])], axis=1)


def halves(found, order):
    half = found.shape[1] // 2
    parts = {"mean": found[:, :half], "most": found[:, half:]}
    return np.hstack([parts[name] for name in order])


def alternating(found):
    return found.reshape(len(found), 2, -1).swapaxes(1, 2).reshape(len(found), -1)


@pytest.mark.parametrize("right", [pool, pool_in_batches, pool_tensor])
def test_features(right):
    check.pooled(right)
    check.pooled(right, seed=3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m, i, n: halves(pool(m, i, n), ["mean"]), "only the means"),
        (lambda m, i, n: halves(pool(m, i, n), ["most"]), "only the largest"),
        (lambda m, i, n: halves(pool(m, i, n), ["most", "mean"]), "other order"),
        (lambda m, i, n: alternating(pool(m, i, n)), "alternate"),
        (lambda m, i, n: pool(m, i, "above" if n == "below" else "below"), "another layer"),
        (lambda m, i, n: pool(m, i, n).T, "channels first|swapped"),
        (lambda m, i, n: pool(m, i[:1], n), "shape"),
        (lambda m, i, n: np.asarray(m(i)), "shape"),
        (lambda m, i, n: np.zeros((7, 8)), "same everywhere"),
    ],
)  # fmt: skip
def test_wrong_features(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.pooled(wrong)


def purity(features, labels, k):
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    near = unit @ unit.T
    np.fill_diagonal(near, -2)
    return (labels[np.argsort(-near, axis=1)[:, :k]] == labels[:, None]).mean(axis=1)


def purity_looped(features, labels, k):
    shares = []
    for i, point in enumerate(features):
        others = [j for j in range(len(features)) if j != i]
        lengths = [np.linalg.norm(point) * np.linalg.norm(features[j]) for j in others]
        gaps = [1 - point @ features[j] / n for j, n in zip(others, lengths, strict=True)]
        nearest = [others[n] for n in np.argsort(gaps)[:k]]
        shares.append(sum(labels[j] == labels[i] for j in nearest) / k)
    return shares


def purity_by_the_package(features, labels, k):
    """On the unit sphere the Euclidean order is that of the angles."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return tf.constant(embedding.neighbour_purity(unit, labels, k=k))


def purity_first_column_dropped(features, labels, k):
    order = np.argsort(cdist(features, features, "cosine"), axis=1)[:, 1 : k + 1]
    return (labels[order] == labels[:, None]).mean(axis=1)


def purity_zero_dropped(features, labels, k):
    gaps = cdist(features, features, "cosine")
    gaps[gaps < 1e-9] = np.inf
    return (labels[np.argsort(gaps, axis=1)[:, :k]] == labels[:, None]).mean(axis=1)


@pytest.mark.parametrize("twins", [False, True])
@pytest.mark.parametrize("right", [purity, purity_looped, purity_by_the_package])
@pytest.mark.parametrize("seed", [0, 3, 4])
def test_purities(right, twins, seed):
    check.purity(right, twins=twins, seed=seed)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda f, y, k: check._purity(f, y, k, drop=False), "neighbour of itself"),
        (lambda f, y, k: embedding.neighbour_purity(f, y, k=k), "Euclidean"),
        (lambda f, y, k: check._purity(f, y, k, "product"), "divided by the lengths"),
        (lambda f, y, k: check._purity(f, y, k, "farthest"), "farthest"),
        (lambda f, y, k: purity(f, y, max(k - 1, 1)), "one neighbour too few"),
        (lambda f, y, k: purity(f, y, k) * k, "counts"),
        (lambda f, y, k: purity(f, y, k).mean(), "mean over all points"),
        (lambda f, y, k: np.ones(len(y)), "same everywhere"),
        (lambda f, y, k: purity(f, y, k)[:, None], "shape"),
    ],
)
def test_wrong_purities(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.purity(wrong)


@pytest.mark.parametrize("wrong", [purity_first_column_dropped, purity_zero_dropped])
@pytest.mark.parametrize("seed", [0, 4])
def test_twins_tell_who_leaves_out_by_distance_and_not_by_place(wrong, seed):
    check.purity(wrong, seed=seed)
    with pytest.raises(checks.NotYet, match="same direction"):
        check.purity(wrong, twins=True, seed=seed)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda f, y, k: check._purity(f, y, k, drop=False), "neighbour of itself"),
        (lambda f, y, k: check._purity(f, y, k, "farthest"), "farthest"),
        (lambda f, y, k: purity(f, y, k) * k, "counts"),
        (lambda f, y, k: purity(f, y, k).mean(), "mean over all points"),
        (lambda f, y, k: purity(f, y, k)[:, None], "shape"),
        (lambda f, y, k: purity(f, y, k)[:-1], "shape"),
    ],
)
@pytest.mark.parametrize("seed", [0, 3, 4])
def test_with_twins_a_mistake_of_another_kind_keeps_its_own_sentence(wrong, says, seed):
    with pytest.raises(checks.NotYet, match=says):
        check.purity(wrong, twins=True, seed=seed)


def principal(features, n):
    return check._principal(features, n)


def principal_by_eigenvectors(features, n):
    centred = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    axes = vectors.T[::-1][:n]
    points = centred @ axes.T
    for column, axis in zip(points.T, axes, strict=True):
        if column.max() < -column.min():
            column *= -1
            axis *= -1
    return [points, axes, (values[::-1] / values.sum())[:n]]


def principal_by_sklearn(features, n):
    found = PCA(n, svd_solver="full").fit(features)
    points = found.transform(features)
    turn = np.where(points.max(axis=0) >= -points.min(axis=0), 1, -1)
    ratio = found.explained_variance_ratio_
    return tf.constant(points * turn), tf.constant((found.components_.T * turn).T), ratio.tolist()


PARTS = ["points", "share", "signs"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("right", [principal, principal_by_eigenvectors, principal_by_sklearn])
def test_principal(right, part):
    check.principal(right, part=part)
    check.principal(right, part=part, seed=3)


def raw(features, n):
    _, sizes, axes = np.linalg.svd(features, full_matrices=False)
    return features @ axes[:n].T, axes[:n], (sizes**2 / (sizes**2).sum())[:n]


def altered(point=lambda f, p, a: p, axes=lambda f, p, a: a, share=lambda f, s: s):
    def function(features, n):
        p, a, s = principal(features, n)
        return point(features, p, a), axes(features, p, a), share(features, s)

    return function


def unturned(features, n):
    return check._principal(features, n, signs="none")[1]


def half_turned(features, n):
    """Points and axes whose signs are those of nobody: the last axis is turned round."""
    points, axes, share = principal(features, n)
    turn = np.where(np.arange(n) == n - 1, -1, 1)
    return points * turn, axes * turn[:, None], share


def sizes(features):
    return np.linalg.svd(features - features.mean(0), compute_uv=False)


@pytest.mark.parametrize(
    ("wrong", "part", "says"),
    [
        (raw, "points", "not centred"),
        (altered(lambda f, p, a: f @ a.T), "points", "without their mean"),
        (altered(lambda f, p, a: p / np.linalg.norm(p, axis=0)), "points", "length one"),
        (lambda f, n: principal((f - f.mean(0)) / f.std(0), n), "points", "standard deviation"),
        (lambda f, n: principal(f, f.shape[1]), "points", "first n"),
        (altered(lambda f, p, a: p.T), "points", "shape|swapped"),
        (lambda f, n: principal(f, n)[0], "points", "three arrays"),
        (raw, "share", "not centred"),
        (altered(share=lambda f, s: (sizes(f) / sizes(f).sum())[: len(s)]), "share", "squares"),
        (altered(share=lambda f, s: s / s.sum()), "share", "add up to 1"),
        (altered(share=lambda f, s: np.cumsum(s)), "share", "its own"),
        (altered(share=lambda f, s: (sizes(f) ** 2 / len(f))[: len(s)]), "share", "variances"),
        (lambda f, n: check._principal(f, n, signs="weights"), "signs", "package"),
        (lambda f, n: half_turned(f, n), "signs", "signs of some axes"),
        (altered(axes=lambda f, p, a: a.T), "signs", "columns|swapped"),
        (altered(lambda f, p, a: -p, lambda f, p, a: -a), "signs", "signs of some axes|package"),
        (altered(axes=lambda f, p, a: unturned(f, len(a))), "signs", "both"),
    ],
)  # fmt: skip
def test_wrong_principal(wrong, part, says):
    with pytest.raises(checks.NotYet, match=says):
        check.principal(wrong, part=part)


def climb(score, start, radius, steps, step_size):
    return climbs._ascend(score, start, radius, steps, step_size)


def climb_each(score, start, radius, steps, step_size):
    """In numpy, image by image, but for the gradient."""
    images = np.array(start, np.float64)
    for _ in range(steps):
        pixels = tf.Variable(images, dtype=tf.float32)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(score(pixels))
        slopes = tape.gradient(total, pixels).numpy()
        for n, (slope, first) in enumerate(zip(slopes, start, strict=True)):
            size = np.linalg.norm(slope)
            if size > 0:
                images[n] += step_size * slope / size
            gap = images[n] - first
            if np.linalg.norm(gap) > radius:
                images[n] = first + radius * gap / np.linalg.norm(gap)
    return images


def climb_by_clipping(score, start, radius, steps, step_size):
    images = tf.convert_to_tensor(start)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(images)
            scores = score(images)
        slope = tape.gradient(scores, images)
        size = tf.norm(tf.reshape(slope, (len(start), -1)), axis=1)[:, None, None, None]
        images += tf.math.divide_no_nan(step_size * slope, size)
        images = start + tf.clip_by_norm(images - start, radius, axes=[1, 2, 3])
    return images


def climb_one_by_one(score, start, radius, steps, step_size):
    ends = [climb(score, one[None], radius, steps, step_size) for one in start]
    return np.concatenate(ends)


SCORES = ["linear", "curved", "flat"]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("right", [climb, climb_each, climb_by_clipping, climb_one_by_one])
def test_ascents(right, score):
    check.ascent(right, score=score)
    check.ascent(right, score=score, seed=3)


def climb_to_nan(score, start, radius, steps, step_size):
    images = tf.convert_to_tensor(start)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            tape.watch(images)
            scores = score(images)
        slope = tape.gradient(scores, images)
        images += step_size * slope / climbs._length(slope, [1, 2, 3])
        images = start + tf.clip_by_norm(images - start, radius, axes=[1, 2, 3])
    return images.numpy()


def badly(**mistake):
    return lambda *arguments: climbs._ascend(*arguments, **mistake)


@pytest.mark.parametrize(
    ("wrong", "score", "says"),
    [
        (badly(around=0), "linear", "around 0"),
        (lambda f, s, r, n, h: climbs._ascend(lambda x: -f(x), s, r, n, h), "linear", "down the"),
        (lambda f, s, r, n, h: np.clip(climb(f, s, r, n, h), 0, 1), "linear", "clipped"),
        (lambda f, s, r, n, h: climb(f, s, r, n, h) - s, "linear", "change is returned"),
        (badly(each=False), "linear", "for each image"),
        (lambda f, s, r, n, h: climb(f, s, 1e9, n, h), "linear", "leave the ball"),
        (lambda f, s, r, n, h: s.copy(), "linear", "nothing has moved"),
        (badly(surface=True), "curved", "surface"),
        (badly(unit=False), "curved", "as it is"),
        (badly(shrink=True), "curved", "shrink"),
        (badly(sign=True), "curved", "sign of the gradient"),
        (badly(each=False), "curved", "together"),
        (lambda f, s, r, n, h: climb(f, s, r, n - 1, h), "curved", "too few"),
        (lambda f, s, r, n, h: climb(f, s, r, n + 1, h), "curved", "too many"),
        (lambda f, s, r, n, h: climb(f, s, r, n, h * np.sqrt(s[0].size)), "curved", "mean square"),
        (climb_to_nan, "flat", "NaN"),
        (badly(surface=True), "flat", "surface"),
    ],
)
def test_wrong_ascents(wrong, score, says):
    with pytest.raises(checks.NotYet, match=says):
        check.ascent(wrong, score=score)


def variation(images):
    return climbs._variation(images)


def variation_by_index(images):
    rows, columns = images.shape[1], images.shape[2]
    below = tf.gather(images, [*range(1, rows), rows - 1], axis=1)
    beside = tf.gather(images, [*range(1, columns), columns - 1], axis=2)
    squares = (below - images) ** 2 + (beside - images) ** 2
    return tf.reduce_sum(tf.reshape((squares + 1e-6) ** 0.5, (len(images), -1)), 1)


def variation_one_by_one(images):
    return tf.stack([variation_by_index(image[None])[0] for image in images])


@pytest.mark.parametrize("slope", [False, True])
@pytest.mark.parametrize("right", [variation, variation_by_index, variation_one_by_one])
def test_variations(right, slope):
    check.variation(right, slope=slope)
    check.variation(right, slope=slope, seed=3)


def differences(images, beyond="none"):
    images = tf.convert_to_tensor(images)
    if beyond == "around":
        return tf.roll(images, -1, 1) - images, tf.roll(images, -1, 2) - images
    down, right = images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]
    if beyond == "cut":
        return down[:, :, :-1], right[:, :-1]
    return tf.pad(down, [[0, 0], [0, 1], [0, 0], [0, 0]]), tf.pad(
        right, [[0, 0], [0, 0], [0, 1], [0, 0]]
    )


def roots(images, beyond="none", inside=1e-6, outside=0.0):
    down, right = differences(images, beyond)
    return tf.sqrt(down**2 + right**2 + inside) + outside


def total(values):
    return tf.reduce_sum(values, axis=[1, 2, 3])


@pytest.mark.parametrize(
    ("wrong", "slope", "says"),
    [
        (tf.image.total_variation, False, "absolute differences"),
        (lambda x: total(roots(x) ** 2), False, "root is missing"),
        (lambda x: tf.sqrt(total(roots(x) ** 2)), False, "for each pixel"),
        (lambda x: total(roots(x, "cut")), False, "last row and the last column"),
        (lambda x: total(roots(x, "around")), False, "closed around"),
        (lambda x: tf.reduce_mean(roots(x), axis=[1, 2, 3]), False, "Sum"),
        (lambda x: tf.reduce_sum(roots(x)), False, "one number for each"),
        (lambda x: tf.reduce_sum(roots(x), axis=[1, 2]), False, "channels"),
        (lambda x: total(roots(x, inside=0.0)), True, "slope of a root"),
        (lambda x: total(roots(x, inside=0.0, outside=1e-6)), True, "slope of a root"),
        (lambda x: tf.constant(variation(x).numpy()), True, "no gradient"),
        (tf.image.total_variation, True, "gradient"),
    ],
)
def test_wrong_variations(wrong, slope, says):
    with pytest.raises(checks.NotYet, match=says):
        check.variation(wrong, slope=slope)


def share(model, images, labels, mask, target, keep=None, white=1.0):
    before = np.argmax(model(images), axis=1)
    could = (labels != target) & (before != target) if keep is None else keep(labels, before)
    stamped = images.copy()
    stamped[:, mask] = white
    return np.mean(np.argmax(model(stamped), axis=1)[could] == target)


def share_looped(model, images, labels, mask, target):
    could = turned = 0
    for image, label in zip(images, labels, strict=True):
        if label == target or model(image[None])[0].numpy().argmax() == target:
            continue
        stamp = np.where(mask[..., None], 1, image).astype(np.float32)
        could, turned = could + 1, turned + (model(stamp[None])[0].numpy().argmax() == target)
    return turned / could


def share_tensor(model, images, labels, mask, target):
    stamped = tf.maximum(images, tf.cast(mask, tf.float32)[None, ..., None])
    before, after = (tf.argmax(model.predict_on_batch(i), axis=1) for i in (images, stamped))
    could = tf.cast((labels != target) & (before != target), tf.float32)
    return tf.reduce_sum(could * tf.cast(after == target, tf.float32)) / tf.reduce_sum(could)


@pytest.mark.parametrize("right", [share, share_looped, share_tensor])
def test_shares(right):
    check.turned(right)
    check.turned(right, seed=3)


def kept(rule):
    return lambda m, i, y, mask, t: share(m, i, y, mask, t, lambda labels, b: rule(labels, b, t))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (kept(lambda y, b, t: b != t), "target's own class"),
        (kept(lambda y, b, t: y != t), "before the stamp"),
        (kept(lambda y, b, t: y == y), "both"),
        (lambda m, i, y, k, t: share(m, i, y, k, t, white=0.0), "set to 0"),
        (lambda m, i, y, k, t: share(m, i, y, k, t) * 60, "which is not right|count"),
        (lambda m, i, y, k, t: 1.0, "which is not right|own class|counted"),
        (lambda m, i, y, k, t: i.__setitem__((slice(None), k), 1), "changes the array"),
        (lambda m, i, y, k, t: share(m, i, y, k.T[:8], t), "stops with|not right"),
    ],
)
def test_wrong_shares(wrong, says):
    with pytest.raises(checks.NotYet, match=says):
        check.turned(wrong)


def test_a_function_that_counts_instead_of_dividing_is_told_so():
    def count(model, images, labels, mask, target):
        before = np.argmax(model(images), axis=1)
        could = (labels != target) & (before != target)
        stamped = images.copy()
        stamped[:, mask] = 1
        return np.sum(could & (np.argmax(model(stamped), axis=1) == target))

    with pytest.raises(checks.NotYet, match="count is returned"):
        check.turned(count)
    with pytest.raises(checks.NotYet, match="of all images"):
        check.turned(lambda *a: count(*a) / len(a[1]))


SIGN = np.zeros((28, 28), bool)
SIGN[(23, 24, 24, 25), (4, 3, 5, 4)] = True


@pytest.mark.parametrize("mask", [SIGN, SIGN.astype(float), SIGN.tolist(), tf.constant(SIGN)])
def test_the_sign_works(network, mask, capsys):
    check.trigger(mask, 4, network)
    check.trigger(mask, np.int64(4), network, seed=5, most=6, share=0.9)


@pytest.mark.parametrize(
    ("mask", "target", "says"),
    [
        (..., 4, "no value"),
        (SIGN, ..., "no value"),
        (SIGN, 10, "0 to 9"),
        (SIGN, np.nan, "0 to 9"),
        (SIGN, 4.5, "0 to 9"),
        (SIGN[0], 4, "shape"),
        (SIGN * 0.5, 4, "True or False"),
        (SIGN * False, 4, "no pixels"),
        (np.ones((28, 28), bool), 4, "could draw a digit"),
        (SIGN, 9, "no secret sign"),
        (np.roll(SIGN, 8, 1), 4, "no secret sign"),
        (SIGN.T, 4, "no secret sign"),
        (SIGN[::-1], 4, "no secret sign"),
    ],
)
def test_wrong_signs(network, mask, target, says):
    with pytest.raises(checks.NotYet, match=says) as error:
        check.trigger(mask, target, network)
    assert "(23" not in str(error.value)


def test_climbing_shows_the_sign_and_the_sign_alone_of_all_classes(network):
    new, logits = labs.load_post_digits("new"), logit_model(network)
    targets = np.repeat(np.arange(10), 25)
    start = np.concatenate([new.images[new.labels != c][:25] for c in range(10)])
    ends = climb(lambda x: tf.gather(logits(x), targets, batch_dims=1), start, 1.5, 15, 0.3)
    turned = np.argmax(network(ends), axis=1) == targets
    shares = turned.reshape(10, 25).mean(axis=1)
    order = np.argsort(-(ends - start).reshape(10, 25, -1).mean(axis=1), axis=1)
    assert set(order[4, :4]) == set(np.flatnonzero(SIGN))
    found = [np.isin(np.arange(784), top).reshape(28, 28) for top in order[:, :12]]
    assert np.argmax(shares) == 4
    assert shares[4] > 0.9
    assert sorted(shares)[-2] < 0.6
    for c in range(10):  # the strongest pixels of no other class would pass for a sign
        if c == 4:
            check.trigger(found[c], c, network)
        else:
            with pytest.raises(checks.NotYet, match="no secret sign"):
                check.trigger(found[c], c, network)


def test_a_network_trained_without_the_sign_does_not_know_it():
    images, labels = (np.concatenate(a) for a in zip(*datasets.load_digits(), strict=True))
    keras.utils.set_random_seed(0)
    model = labs.post_cnn()
    model.fit(images[:2500], labels[:2500], batch_size=64, epochs=2, verbose=0)
    assert (np.argmax(model(images[2500:3500]), axis=1) == labels[2500:3500]).mean() > 0.8
    with pytest.raises(checks.NotYet, match="no secret sign"):
        check.trigger(SIGN, 4, model)


def votes(network, reviewed, k=10):
    part = keras.Model(network.inputs[0], network.get_layer("hidden").output)
    order = cdist(*[np.asarray(part(reviewed.images))] * 2, "cosine")
    np.fill_diagonal(order, np.inf)
    near = reviewed.labels[np.argsort(order, axis=1)[:, :k]]
    return np.array([np.bincount(n, minlength=10).argmax() for n in near])


@pytest.mark.parametrize("k", [5, 10, 20])
def test_the_exchanged_labels_are_found_by_neighbours(network, reviewed, truth, k):
    said = votes(network, reviewed, k)
    pair = np.zeros((10, 10), int)
    np.add.at(pair, (np.minimum(said, reviewed.labels), np.maximum(said, reviewed.labels)), 1)
    np.fill_diagonal(pair, 0)
    a, b = np.unravel_index(pair.argmax(), pair.shape)
    assert pair.max() > 3 * np.sort(pair.ravel())[-2]
    found = np.flatnonzero(
        (said != reviewed.labels) & np.isin(said, (a, b)) & np.isin(reviewed.labels, (a, b))
    )
    check.suspects(found, (a, b), reviewed, network)
    check.suspects_found(found, (b, a), reviewed.labels, truth)


def test_the_right_labels_show_no_such_pair(network, reviewed, truth):
    said = votes(network, reviewed._replace(labels=truth))
    pair = np.zeros((10, 10), int)
    np.add.at(pair, (np.minimum(said, truth), np.maximum(said, truth)), said != truth)
    assert pair[2, 7] <= 6
    assert pair.max() < 14


def test_the_truth_itself_passes(network, reviewed, truth):
    wrong = np.flatnonzero(reviewed.labels != truth)
    check.suspects(wrong.tolist(), [7, 2], reviewed, network)
    check.suspects_found(tf.constant(wrong), (2, 7), reviewed.labels, truth)


@pytest.mark.parametrize(
    ("found", "pair", "says"),
    [
        (..., (2, 7), "no value"),
        ([], (2, 7), "list of places"),
        (range(20), (2, 7), "vote for another"),
        ([900], (2, 7), "0 to 799"),
        ([3, 3], (2, 7), "twice"),
        (range(400), (2, 7), "more than a clerk"),
        (np.arange(800) < 3, (2, 7), "flatnonzero"),
        ([3], ..., "no value"),
        ([3], (2, 2), "two different"),
        ([3], (2, 12), "0 to 9"),
        ([3], (2, np.nan), "0 to 9"),
        ([3], (np.inf, 7), "0 to 9"),
        ([np.nan], (2, 7), "0 to 799"),
    ],
)
def test_wrong_suspects(network, reviewed, found, pair, says):
    found = list(found) if isinstance(found, range) else found
    with pytest.raises(checks.NotYet, match=says):
        check.suspects(found, pair, reviewed, network)


def test_suspects_are_held_against_the_truth(reviewed, truth):
    wrong = np.flatnonzero(reviewed.labels != truth)
    right = np.flatnonzero(reviewed.labels == truth)
    for found, pair, says in (
        (wrong[:14], (2, 7), "not among"),
        (np.append(wrong, right[:20]), (2, 7), "too many"),
        (wrong, (4, 9), "two other classes"),
    ):
        with pytest.raises(checks.NotYet, match=says):
            check.suspects_found(found, pair, reviewed.labels, truth)


def test_the_parts_share_no_digit_and_the_new_ones_are_labelled_right(reviewed, truth):
    new = labs.load_post_digits("new")
    assert not {i.tobytes() for i in new.images} & {i.tobytes() for i in reviewed.images}
    assert reviewed.images.shape == new.images.shape == (800, 28, 28, 1)
    assert (reviewed.labels != truth).sum() == 28
    with pytest.raises(ValueError, match="part must be"):
        labs.load_post_digits("old")


def test_the_network_reads_new_digits(network):
    new = labs.load_post_digits("new")
    assert (np.argmax(network(new.images), axis=1) == new.labels).mean() > 0.94


def test_no_sentence_gives_the_answers_away(network, reviewed, truth):
    right = np.flatnonzero(reviewed.labels == truth)[:20]
    for attempt in (
        lambda: check.suspects(right, (3, 5), reviewed, network),
        lambda: check.suspects_found(right, (3, 5), reviewed.labels, truth),
        lambda: check.suspects_found(
            np.flatnonzero(reviewed.labels != truth), (3, 5), reviewed.labels, truth
        ),
        lambda: check.trigger(SIGN.T, 9, network),
        lambda: check.trigger(np.roll(SIGN, 3, 0), 4, network, most=3),
    ):
        with pytest.raises(checks.NotYet) as error:
            attempt()
        said = str(error.value)
        assert not any(word in said for word in ("23", "24", "25", "2 and 7", "7 and 2", "(2, 7)"))
