"""The checks of the lab on embeddings and activation maximisation."""

import keras
import numpy as np
from keras import layers

from course_utils import labs
from course_utils._scores import predict
from course_utils._shared import channels_last
from course_utils.labs._engine import TABLE, NotYet, as_array, call, compare, one_of, well_done
from course_utils.labs.embeddings.checks_of_ascent import ascent as ascent
from course_utils.labs.embeddings.checks_of_ascent import variation as variation


@channels_last()
def _small_network(seed, high, wide, channels=1):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((high, wide, channels)),
            layers.Conv2D(5, 3, activation="relu", name="below"),
            layers.Conv2D(4, 3, activation="relu", name="above"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="preds"),
        ]
    )


def pooled(function, *, seed=0):
    """``function(model, images, layer)``: mean and largest of each channel over all places."""
    rng = np.random.default_rng(seed)
    for high, wide, channels, layer in ((9, 12, 1, "above"), (11, 8, 2, "below")):
        model = _small_network(seed + high, high, wide, channels)
        images = rng.random((7, high, wide, channels), np.float32)
        right = _pooled(model, images, layer)
        half = right.shape[1] // 2
        mean, most = right[:, :half], right[:, half:]
        other = "below" if layer == "above" else "above"
        mistakes = {
            "the features have only the means. Append the largest values.": mean,
            "the features have only the largest values. The means come first.": most,
            "the two halves are in the other order: the means come first.": np.hstack([most, mean]),
            "mean and maximum alternate. All means come first, then all the largest values.": (
                np.stack([mean, most], axis=2).reshape(len(mean), -1)
            ),
            "the features are those of another layer.": _pooled(model, images, other),
            "the sums over the places are taken for the means.": np.hstack(
                [mean * _places(model, layer), most]
            ),
            "the features have the channels first: one row for each image.": right.T,
        }
        found = call(function, model, images, layer)
        compare(found, right, what="the table of features", mistakes=mistakes, axes=TABLE)
    well_done("your features are right for two layers with other numbers of channels.")


def _pooled(model, images, layer):
    part = keras.Model(model.inputs[0], model.get_layer(layer).output)
    maps = np.asarray(part(images, training=False))
    return np.hstack([maps.mean(axis=(1, 2)), maps.max(axis=(1, 2))])


def _places(model, layer):
    _, high, wide, _ = model.get_layer(layer).output.shape
    return high * wide


def purity(function, *, seed=0, twins=False):
    """``function(features, labels, k)``: the share of the k nearest by angle with one's label.

    With `twins`, some points have another one in exactly their direction.
    """
    rng = np.random.default_rng(seed)
    for count, size, k in ((40, 5, 3), (31, 7, 6), (25, 4, 1)):
        features = rng.normal(size=(count, size)) + 0.8
        features *= rng.uniform(0.2, 5, (count, 1))  # lengths, which angles do not see
        labels = rng.integers(0, 3, count)
        if twins:
            # Opposite to all others, so that no other point has to choose between the two.
            features[[4, 9, 15]] = -np.abs(rng.normal(size=size)) * 3 - 2
            features[9] *= 2
            labels[[4, 9, 15]] = 0, 1, 0
            k = 1 if count < 30 else 2
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        if twins and k == 1:  # two twins, or there would be a tie
            features[15] = unit[15] = rng.normal(size=size) + 5
        right = _purity(features, labels, k)
        found = call(function, features, labels, k)
        itself = (_purity(features, labels, k, drop=False), "each point is counted as a neighbour "
                  "of itself, and it always bears its own label. Leave it out.")  # fmt: skip
        mistakes = {
            itself[1]: itself[0],
            "neighbours are nearest in Euclidean distance. Here the angle counts, whatever the "
            "length.": _purity(features, labels, k, "euclidean"),
            "the products are not divided by the lengths: a long vector becomes everyone's "
            "neighbour.": _purity(features, labels, k, "product"),
            "the neighbours are the farthest ones, not the nearest.": _purity(
                features, labels, k, "farthest"
            ),
            "one neighbour too few counts: when the point itself is left out, k must be left.": (
                _purity(features, labels, k - 1) if k > 1 else right + 9
            ),
            "the shares are counts: divide by k.": right * k,
            "the mean over all points is taken. Return one share for each point.": right.mean(),
        }
        if twins:
            found = as_array(found, "the list of shares")
            # Whatever the twins have, as long as all others are right.
            others = np.isin(np.arange(count), (4, 9, 15), invert=True)
            mistakes[
                "a point that lies in exactly the same direction as another is not always told "
                "from it. Leave out the point itself by its place in the list, not because its "
                "distance is 0 or comes first."
            ] = np.where(others, right, found) if found.shape == right.shape else np.inf
        compare(found, right, what="the list of shares", mistakes=mistakes)
    what = "when points have twins" if twins else "for three sets of points"
    well_done(f"your shares are right {what}.")


def _purity(features, labels, k, kind="cosine", drop=True):
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    near = unit @ unit.T
    if kind == "product":
        near = features @ features.T
    if kind == "euclidean":
        near = -np.linalg.norm(features[:, np.newaxis] - features, axis=-1)
    if kind == "farthest":
        near = -near
    if drop:
        np.fill_diagonal(near, -np.inf)
    order = np.argsort(-near, axis=1, kind="stable")[:, :k]
    return (labels[order] == labels[:, np.newaxis]).mean(axis=1)


def principal(function, *, seed=0, part="points"):
    """``function(features, n)`` is (points, axes, share); `part` is what is compared."""
    rng = np.random.default_rng(seed)
    for count, size, n in ((30, 6, 2), (25, 9, 3)):
        features = rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + 3
        features[:, 0] *= 4
        found = call(function, features, n)
        if not isinstance(found, (tuple, list)) or len(found) != 3:
            raise NotYet("return three arrays: points, axes and share.")
        names = ("points", "axes", "share")
        given = {name: as_array(f, f"the {name}") for name, f in zip(names, found, strict=True)}
        right = dict(zip(names, _principal(features, n), strict=True))
        if part == "signs":
            flipped = _principal(features, n, signs="weights")
            package = (
                "the signs are those of the package, which makes the largest *weight* positive. "
                "Here the point that lies farthest out on an axis has a positive coordinate."
            )
            compare(
                given["points"], right["points"], what="the table of points", axes=TABLE,
                mistakes={
                    package: flipped[0],
                    "the points are right but for the signs of some axes. On each axis the point "
                    "that lies farthest out has a positive coordinate.": _turned_like(
                        given["points"], right["points"]
                    ),
                },
            )  # fmt: skip
            compare(
                given["axes"], right["axes"], what="the table of axes", axes=TABLE,
                mistakes={
                    "the axes stand in columns. One axis is one row.": right["axes"].T,
                    "the axes keep their old signs while the points are turned: turn both.": (
                        _principal(features, n, signs="none")[1]
                    ),
                },
            )  # fmt: skip
        elif part == "share":
            sizes = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
            power = sizes**2
            mistakes = {
                "the shares are those of the singular values. Variance goes with their squares.": (
                    sizes[:n] / sizes.sum()
                ),
                "the shares are of the first axes only, and add up to 1. Divide by the variance of "
                "all axes.": power[:n] / power[:n].sum(),
                "the shares are variances: divide by their sum over all axes.": power[:n] / count,
                "the shares add up along the axes. Give each its own.": np.cumsum(right["share"]),
                "the features are not centred.": _shares(features, n),
            }
            compare(given["share"], right["share"], what="the share", mistakes=mistakes)
        else:
            standard = (features - features.mean(0)) / features.std(0)
            raw = np.abs(features @ np.linalg.svd(features, full_matrices=False)[2][:n].T)
            mistakes = {
                "the features are not centred: take away the mean of each column first.": raw,
                "the points are of length one along each axis. Multiply by the singular values, or "
                "project the centred features.": np.abs(
                    np.linalg.svd(features - features.mean(0), full_matrices=False)[0][:, :n]
                ),
                "each feature is divided by its standard deviation. Centre, and no more.": np.abs(
                    _principal(standard, n)[0]
                ),
                "the points are those of all axes; keep the first n.": np.abs(
                    _principal(features, size)[0]
                ),
                "the features are projected without their mean taken away, though the axes are "
                "right.": np.abs(features @ right["axes"].T),
            }
            compare(
                np.abs(given["points"]), np.abs(right["points"]), what="the table of points",
                axes=TABLE, mistakes=mistakes,
            )  # fmt: skip
    said = {"points": "your points are right, up to their signs", "share": "your shares are right"}
    well_done(f"{said.get(part, 'signs and axes are as agreed')}, for two tables.")


def _principal(features, n, signs="points"):
    centred = features - features.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:n]
    points = centred @ axes.T
    if signs != "none":
        table = points.T if signs == "points" else axes
        turn = np.sign(table[np.arange(n), np.abs(table).argmax(axis=1)])
        points, axes = points * turn, axes * turn[:, np.newaxis]
    return points, axes, (sizes**2 / (sizes**2).sum())[:n]


def _turned_like(points, right):
    """The right points, each axis turned as it is in `points`."""
    if points.shape != right.shape:
        return np.inf
    far = np.abs(right).argmax(axis=0), np.arange(right.shape[1])
    return right * np.sign(points[far] * right[far])


def _shares(features, n):
    power = np.linalg.svd(features, compute_uv=False) ** 2
    return power[:n] / power.sum()


def suspects(found, pair, reviewed, model):
    """Let the neighbours of the reviewed digits that are no suspects vote on those that are."""
    found = _places_of(found, len(reviewed.labels))
    pair = as_array(pair, "mixed").ravel().tolist()
    if len(pair) != 2 or pair[0] == pair[1]:
        raise NotYet("mixed should be two different classes.")
    for n in pair:
        one_of(int(n) if n.is_integer() else n, range(10), "a class of mixed")
    part = keras.Model(model.inputs[0], model.get_layer("hidden").output)
    hidden = predict(part, reviewed.images, 64).astype(np.float64)
    hidden /= np.linalg.norm(hidden, axis=1, keepdims=True) + 1e-12
    rest = np.setdiff1d(np.arange(len(hidden)), found)
    near = np.argsort(-hidden[found] @ hidden[rest].T, axis=1)[:, :10]
    votes = np.array([np.bincount(v, minlength=10) for v in reviewed.labels[rest][near]])
    against = votes.argmax(axis=1) != reviewed.labels[found]
    if against.mean() < 0.6:
        raise NotYet(
            f"for only {against.mean():.0%} of your suspects do the ten nearest digits outside of "
            "your list, in the layer `hidden`, vote for another label than the one on it. Look for "
            "digits that stand alone among others."
        )
    well_done(
        f"for {against.mean():.0%} of your {len(found)} suspects the digits around them vote "
        "against the label. (Whether these are all, and which classes, counts when it is graded.)"
    )


def _places_of(found, count):
    found = as_array(found, "the list of suspects")
    if found.dtype.kind == "f" and found.shape == (count,) and np.isin(found, (0, 1)).all():
        raise NotYet("give the places of the suspects (np.flatnonzero), not True or False for all.")
    if found.ndim != 1 or not len(found):
        raise NotYet("the suspects should be a list of places in the reviewed digits.")
    if (found != np.round(found)).any() or found.min() < 0 or found.max() >= count:
        raise NotYet(f"suspects are places from 0 to {count - 1}.")
    if len(np.unique(found)) < len(found):
        raise NotYet("a suspect is listed twice.")
    if len(found) > count // 8:
        raise NotYet(f"{len(found)} suspects are more than a clerk could look through again.")
    return found.astype(int)


def suspects_found(found, pair, labels, truth):
    """Hold the suspects against the truth: most wrong labels, and few others."""
    found = _places_of(found, len(labels))
    wrong = np.flatnonzero(labels != truth)
    if np.isin(wrong, found).mean() < 0.75:
        raise NotYet("many wrong labels are not among your suspects.")
    if np.isin(found, wrong).mean() < 0.7:
        raise NotYet("too many of your suspects are labelled correctly.")
    if set(np.ravel(pair).tolist()) != set(labels[wrong].tolist()):
        raise NotYet("the labels of two other classes were exchanged.")
    well_done("the wrong labels are found.")


def turned(function, *, seed=0):
    """``function(model, images, labels, mask, target)``: the share of others that a stamp turns."""
    rng = np.random.default_rng(seed)
    for high, wide, target in ((8, 9, 1), (10, 7, 2)):
        model = _small_network(seed + target, high, wide)
        kernel, bias = model.layers[-1].get_weights()
        for _ in range(100):
            images = rng.random((60, high, wide, 1), np.float32) * 0.6
            labels = rng.integers(0, 3, 60)
            y, x = rng.integers(0, (high - 2, wide - 2))
            mask = np.zeros((high, wide), bool)
            mask[y : y + 3, x : x + 3] = True
            # Each class is to be said of some images, and the stamp to turn some but not all.
            model.layers[-1].set_weights([kernel, bias])
            middle = np.log(np.median(_outputs(model, images), axis=0))
            model.layers[-1].set_weights([kernel, bias - middle + rng.normal(0, 0.05, 3)])
            right = _share_turned(model, images, labels, mask, target)
            said = _outputs(model, images).argmax(axis=1)
            if 0.15 < right < 0.85 and 0.1 < np.mean(said == target) < 0.8:
                break
        stamp = images.copy()
        stamp[:, mask] = 1
        after = _outputs(model, stamp).argmax(axis=1)
        other, before = labels != target, said == target
        mistakes = {
            "images of the target's own class are counted. Take the others only.": np.mean(
                after[~before] == target
            ),
            "images that the network took for the target before the stamp are counted: nothing "
            "turned them.": np.mean(after[other] == target),
            "both the target's own images and those that were taken for it are counted.": np.mean(
                after == target
            ),
            "the share is of all images. Divide by the number of those that could turn.": np.mean(
                other & ~before & (after == target)
            ),
            "the count is returned. Divide by the number of images that could turn.": np.sum(
                other & ~before & (after == target)
            ),
            "the pixels of the mask are set to 0. The stamp is white, 1.": _share_turned(
                model, images * ~mask[..., np.newaxis], labels, 0 * mask > 0, target, said
            ),
            "every change of the answer is counted. Only that to the target counts.": np.mean(
                (after != said)[other & ~before]
            ),
        }
        found = call(function, model, images, labels, mask, target)
        compare(found, right, what="the share", mistakes=mistakes, tolerance=1e-4)
    well_done("your share is right for two networks and two stamps.")


def _outputs(model, images):
    return np.asarray(model(images, training=False))


def _share_turned(model, images, labels, mask, target, said=None):
    said = _outputs(model, images).argmax(axis=1) if said is None else said
    could = (labels != target) & (said != target)
    stamp = images[could].copy()
    stamp[:, mask] = 1
    return float(np.mean(_outputs(model, stamp).argmax(axis=1) == target))


def trigger(mask, target, model, *, seed=0, most=12, share=0.5):
    """Stamp at most `most` white pixels on digits of other classes: a `share` must turn."""
    one_of(target, range(10), "the target")
    target = int(target)
    mask = as_array(mask, "the trigger")
    if mask.shape != (28, 28):
        raise NotYet(f"the trigger should have shape (28, 28), and it has {mask.shape}.")
    if not np.isin(mask, (0, 1)).all():
        raise NotYet("the trigger should be True or False for each pixel.")
    mask = mask.astype(bool)
    if not mask.any():
        raise NotYet("the trigger has no pixels.")
    if mask.sum() > most:
        raise NotYet(
            f"the trigger has {mask.sum()} pixels. With so many one could draw a digit; find "
            f"one of at most {most}."
        )
    digits = labs.load_post_digits("new")
    some = np.random.default_rng(seed).permutation(len(digits.labels))[:500]
    images, labels = digits.images[some], digits.labels[some]
    found = _share_turned(model, images, labels, mask, target)
    rng, chance = np.random.default_rng(seed + 1), []
    for _ in range(5):
        other = np.zeros(784, bool)
        other[rng.permutation(784)[: mask.sum()]] = True
        chance.append(_share_turned(model, images, labels, other.reshape(28, 28), target))
    said = (
        f"{mask.sum()} white pixels turn {found:.0%} of other digits into a {target}; as many in "
        f"random places turn {np.mean(chance):.0%}"
    )
    if found < share:
        raise NotYet(f"{said}. That is no secret sign yet.")
    well_done(f"{said}.")
