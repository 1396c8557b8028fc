"""Counterfactuals: what would have to be different about an image for another answer."""

import functools
import weakref
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from course_utils._arrays import check_whole
from course_utils._parts import check_segments
from course_utils._plain import kept, plain
from course_utils._scores import images_spec, of_columns, of_target, predict, reached, score_model
from course_utils._shared import channels_first, check_graph, check_images, check_targets


class Counterfactuals(NamedTuple):
    """What `counterfactual` found, an entry for each image."""

    images: np.ndarray
    """float32 (N, H, W, C): the changed images, in the order of axes in which they were given."""
    flipped: np.ndarray
    """bool (N,): whether the answer is the wanted one now, by more than rounding."""
    parts: np.ndarray | None
    """bool (N, number of parts): which were replaced; None if not by parts."""
    sources: np.ndarray | None
    """int64 (N,): which of the others the parts come from; None if not by parts."""
    latents: np.ndarray | None
    """float32 (N, ...): the generator's input for each image; None if not by the generator."""


def counterfactual(
    model,
    images,
    targets,
    *,
    to,
    by="pixels",
    norm=2,
    low=None,
    high=None,
    segments=None,
    others=None,
    generator=None,
    latents=None,
    steps=50,
    batch_size=32,
):
    """Search for the smallest change of images after which the answer is another class.

    By "pixels" every value may change; by "parts", parts of the image are replaced by the same
    places of another image that has the wanted answer; by "generator", the latent vector changes
    from which a generator draws the image.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
        The answer that is not to be given, for all images or for each.
    to : int or int array (N,)
        The class that is to get the highest score, never the target itself. A model with one
        output has the classes 0 and 1.
    by : "pixels", "parts" or "generator"
    norm : 2 or 1
        Of pixels and latent numbers: the change whose sum of squares is smallest, or the one
        whose sum of absolute values is, which changes few values by much and needs a range.
    low, high : float, optional
        The range of the pixels, or of the latent numbers, which the images must keep to.
    segments : int array (H, W) or (N, H, W), optional
        By parts: the part of each pixel, 0, 1, 2, ..., for all images or for each.
    others : array (M, H, W, C), optional
        By parts: images to take parts from. Of those whose answer is `to`, the one nearest in
        Euclidean distance is taken, the nearest unlike neighbour.
    generator : keras.Model, optional
        Makes an image for `model` of each latent vector (N, ...).
    latents : array (N, ...), optional
        By the generator: the latent vector of each image, from where the search begins. What is
        changed is the generator's drawing of it, not the image.
    steps : int
        Steps of the search for pixels and latent numbers.
    batch_size : int
        Images that run through the network at a time.

    Returns
    -------
    Counterfactuals
        ``images``, ``flipped``, ``parts``, ``sources`` and ``latents``. What has the wanted answer
        already is returned as it is; what could not be turned, at the last step of the search.

    Raises
    ------
    ValueError
        If an argument does not fit or belongs to another way, or none of the others has the
        answer `to`.

    Notes
    -----
    Pixels and latent numbers: each step takes the scores for linear where it stands and goes the
    shortest way to where the wanted class is ahead; once there, it begins again from
    the image with what it learned there, and the smallest of all changes that turned the answer
    counts, shortened as far as the answer allows. For a linear model, that is the projection onto
    its boundary; for others, a small change, not proven to be the smallest. Parts: the one that
    helps most is replaced, then the next, until the answer turns; then those are put back that
    were not needed.

    A tie is not the wanted answer, but of pixels and latent numbers the search ends at the
    boundary, a few roundings beyond it: of the same image rounded to bytes, or in another
    program, the answer may be the old one.

    References
    ----------
    Wachter, Mittelstadt and Russell, Counterfactual Explanations without Opening the Black Box
    (2017), arXiv:1711.00399. For the steps: Moosavi-Dezfooli, Fawzi and Frossard, DeepFool (CVPR
    2016); Croce and Hein, Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary
    Attack (ICML 2020). For parts: Goyal et al., Counterfactual Visual Explanations (ICML 2019);
    Keane and Smyth, Good Counterfactuals and Where to Find Them (2020). For the generator: Joshi
    et al., Towards Realistic Individual Recourse (2019), arXiv:1907.09615.
    """
    images = check_images(model, images)
    first = channels_first(model)
    if "float" not in (dtype := model.inputs[0].dtype):
        raise ValueError(
            f"the model takes whole numbers ({dtype}), and to round the smallest change undoes it. "
            "Change the input of the part of the network that takes floats."
        )
    to = _check_classes(model, targets, to, len(images))
    check_whole("steps", steps, 1)
    check_whole("batch_size", batch_size, 1)
    _check_way(by, segments=segments, others=others, generator=generator, latents=latents)
    scored = score_model(model, "logit")
    unit = 0.0 if scored is score_model(model, "probability") else 1.0
    parts = sources = None
    if by == "parts":
        others = _check_others(model, others)
        segments = _check_parts(segments, images.shape[:3])
        ask = functools.partial(predict, scored, batch_size=batch_size)
        lead = functools.partial(_margins, unit=unit)
        images, parts, sources = _by_parts(ask, lead, images, to, others, segments)
        flipped = lead(_as_called(scored, images, batch_size), to) > 0
    else:
        points = images if by == "pixels" else _check_latents(model, generator, latents, images)
        _check_range(points, norm, low, high)
        climb = _slopes(scored, generator, first, unit)
        some = (slice(i, i + batch_size) for i in range(0, len(points), batch_size))
        found = [_nearest(climb, points[s], to[s], norm, low, high, steps) for s in some]
        points, flipped = (np.concatenate(part) for part in zip(*found, strict=True))
        images = points
        if by == "generator":
            latents, images = points, _drawn(generator, points, batch_size, first)
    images = np.ascontiguousarray(np.moveaxis(images, -1, 1)) if first else images
    return Counterfactuals(images, flipped, parts, sources, latents)


# How far a class must be ahead: the share of what is added up in the scores that rounding may take
# from them, so that the model gives the same answer in another batch; and, where a softmax or
# sigmoid follows, in probabilities, as a share of the `unit` 1.
_ROUNDING = 2.0**-21


# Pixels and latent numbers


def _nearest(climb, start, to, norm, low, high, steps):
    """Points near the start, float32, at which the answer is `to`, and whether it is."""
    shape, start = start.shape, start.reshape(len(start), -1).astype(np.float64)

    def ask(points):
        asked = tf.constant(points.reshape(shape), tf.float32)
        margins, slopes = climb(asked, tf.constant(to))
        return margins.numpy().astype(np.float64), slopes.numpy().reshape(start.shape)

    point, best = start.copy(), start.copy()
    smallest = np.full(len(start), np.inf)
    for step in range(steps + 1):  # a last round, which moves nothing, judges what is found
        margins, slopes = ask(point)
        size = np.linalg.norm(point - start, ord=norm, axis=1)
        better = (margins > 0) & (size < smallest)
        best[better], smallest[better] = point[better], size[better]
        if step == steps or not smallest.any():
            break
        if step == 0:
            beyond = 1e-4 * np.abs(margins)
        # On from here, a little beyond the boundary; or, where it is passed, from the start again.
        inside = margins <= 0
        origin = np.where(inside[:, np.newaxis], point, start)
        offset = np.sum(slopes.astype(np.float64) * (origin - point), axis=1)
        need = np.maximum(-margins - offset, 0) + beyond
        point = origin + _smallest_change(origin, slopes.astype(np.float64), need, norm, low, high)
    flipped = np.isfinite(smallest)
    best[~flipped] = point[~flipped]
    return _shortened(ask, start, best).reshape(shape).astype(np.float32), flipped


def _shortened(ask, start, best):
    """The points between start and best, as near to the start as the answer allows."""
    way, fine, tries = best - start, 2.0**-24, 0
    near, far = np.zeros(len(start)), np.ones(len(start))
    middle = far
    while (far - near > 4 * fine).any():
        margins, slopes = ask(start + middle[:, np.newaxis] * way)
        turned = margins > 0
        near, far = np.where(turned, near, middle), np.where(turned, middle, far)
        # Just past where the slope says that the boundary is; each eighth time, halve what is left.
        rise = np.sum(slopes * way, axis=1)
        missing = np.divide(margins, rise, out=np.full(len(start), np.inf), where=rise != 0)
        crossing = middle - missing - np.where(turned, fine, -fine)
        tries += 1
        between = (near < crossing) & (crossing < far) & (tries % 8 > 0)
        middle = np.where(between, crossing, (near + far) / 2)
    return start + far[:, np.newaxis] * way


def _smallest_change(origin, slopes, need, norm, low, high):
    """The smallest change, within the range, along which a linear score rises by `need`; (N, D).

    Where the range does not allow as much, the change that comes nearest to it.
    """
    if low is None:
        room = np.full(slopes.shape, np.inf)
    else:
        room = np.maximum(np.where(slopes > 0, high - origin, origin - low), 0)
    steep = np.abs(slopes)
    if norm == 1:  # the steepest first, as far as they go
        order = np.argsort(-steep, axis=1, kind="stable")
        most = np.take_along_axis(steep * room, order, axis=1)
        before = np.cumsum(most, axis=1) - most
        used = np.clip(need[:, np.newaxis] - before, 0, most)
        gained = np.zeros_like(steep)
        np.put_along_axis(gained, order, used, axis=1)
        return np.sign(slopes) * np.divide(gained, steep, out=gained, where=steep > 0)
    # All in proportion to their slopes, but no further than they can: of those numbers that have
    # reached their end, the others make up for what they lack.
    ended = np.zeros(steep.shape, bool)
    while True:
        left = need - np.sum(steep * np.where(ended, room, 0), axis=1)
        squares = np.sum(steep**2, axis=1, where=~ended)
        factor = np.divide(left, squares, out=np.zeros_like(left), where=squares > 0)
        wanted = factor[:, np.newaxis] * steep
        more = ~ended & (wanted > room)
        if not more.any():
            return np.sign(slopes) * np.where(ended, room, wanted)
        ended |= more


def _slopes(scored, generator, first, unit):
    """The compiled function (points, classes) -> margins of the classes, and their gradients."""
    makes = None if generator is None else plain(generator)
    # The token is another one when the generator computes something else.
    token = None if generator is None else kept(generator, "token", object)
    drawn = None if makes is None else weakref.ref(makes)
    run = functools.partial(_run, weakref.ref(scored), drawn, first, unit)
    specs = [images_spec(makes or scored), tf.TensorSpec((None,), tf.int64)]
    make = functools.partial(tf.function, run, specs, autograph=False)
    return kept(scored, ("counterfactual", token, unit), make)


def _run(scored, makes, first, unit, points, to):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        images = points if makes is None else _images(makes(), points, first)
        scores = tf.cast(scored()(images, training=False), tf.float32)
        if scores.shape[-1] == 1:
            margins = tf.where(to == 1, scores[:, 0], -scores[:, 0])
            summed = tf.abs(margins)
        else:
            own = tf.one_hot(to, scores.shape[-1], on_value=True, off_value=False)
            rival = tf.reduce_max(tf.where(own, -np.inf, scores), axis=1)
            wanted = of_columns(scores, to)
            margins, summed = wanted - rival, tf.abs(wanted) + tf.abs(rival)
    slopes = reached(tape.gradient(margins, points))
    axes = list(range(1, len(points.shape)))
    summed += tf.reduce_sum(tf.abs(slopes * points), axes)
    return margins - _ROUNDING * (summed + unit), slopes


def _images(makes, points, first):
    """What a generator draws, with channels last; `first` says that it has them first."""
    images = tf.cast(makes(points, training=False), tf.float32)
    return tf.transpose(images, (0, 2, 3, 1)) if first else images


# Parts


def _by_parts(ask, lead, images, to, others, segments):
    """The images with parts replaced, which parts (N, parts), and where they come from (N,)."""
    images, count = images.copy(), int(segments.max()) + 1
    replaced = np.zeros((len(images), count), bool)
    sources = np.empty(len(images), np.int64)
    scores = ask(others)
    allowed = {c: lead(scores, np.full(len(others), c)) > 0 for c in np.unique(to)}
    for n, image in enumerate(images):
        sources[n] = _unlike(image, others, allowed[to[n]], to[n])
        replaced[n] = _fewest(ask, lead, image, others[sources[n]], to[n], segments[n])
        shown = replaced[n][segments[n]][..., np.newaxis]
        image[:] = np.where(shown, others[sources[n]], image)
    return images, replaced, sources


def _unlike(image, others, allowed, to):
    """The nearest of the allowed others."""
    if not allowed.any():
        raise ValueError(
            f"none of the {len(others)} others has the answer {to}: pass images that the model "
            "gives that answer."
        )
    distances = np.sum((others - image) ** 2, axis=(1, 2, 3), dtype=np.float64)
    return np.where(allowed, distances, np.inf).argmin()


def _fewest(ask, lead, image, other, to, segments):
    """Which parts of the other to put into the image, a greedy choice, bool (parts,)."""
    count = int(segments.max()) + 1
    chosen = np.zeros(count, bool)

    def margins(choices):
        shown = choices[:, segments][..., np.newaxis]
        return lead(ask(np.where(shown, other, image)), np.full(len(choices), to))

    margin = margins(chosen[np.newaxis])[0]
    while margin <= 0 and not chosen.all():
        more = np.flatnonzero(~chosen)
        choices = chosen | (np.arange(count) == more[:, np.newaxis])
        found = margins(choices)
        chosen, margin = choices[found.argmax()], found.max()
    while margin > 0 and chosen.any():  # put back what is not needed
        choices = chosen & (np.arange(count) != np.flatnonzero(chosen)[:, np.newaxis])
        found = margins(choices)
        if found.max() <= 0:
            break
        chosen = choices[found.argmax()]
    return chosen


def _as_called(scored, images, batch_size):
    """The scores as who calls the network gets them, which rounding sets apart from `predict`'s."""
    some = (slice(i, i + batch_size) for i in range(0, len(images), batch_size))
    return np.concatenate([np.float32(scored(images[s], training=False)) for s in some])


def _margins(scores, to, unit):
    """How far each class `to` is ahead of the highest other one by more than rounding, (N,)."""
    own = of_target(scores, to, "logit")
    if scores.shape[1] == 1:
        return own - _ROUNDING * (np.abs(own) + unit)
    rivals = scores.copy()
    rivals[np.arange(len(scores)), to] = -np.inf
    rival = rivals.max(axis=1)
    return own - rival - _ROUNDING * (np.abs(own) + np.abs(rival) + unit)


def _drawn(generator, latents, batch_size, first):
    images = predict(plain(generator), latents, batch_size)
    return np.moveaxis(images, 1, -1) if first else images


# Checks

_NEEDS = {"pixels": (), "parts": ("segments", "others"), "generator": ("generator", "latents")}


def _check_way(by, **given):
    """Raise ValueError unless what `by` needs is given, and nothing that it does not."""
    if by not in _NEEDS:
        raise ValueError(f'by must be "pixels", "parts" or "generator", got {by!r}.')
    for name, value in given.items():
        if (value is not None) != (name in _NEEDS[by]):
            verb = "needs" if value is None else "does without"
            raise ValueError(f'by="{by}" {verb} {name}.')


def _check_classes(model, targets, to, count):
    targets = check_targets(model, targets, count)
    try:
        to = check_targets(model, to, count)
    except ValueError as error:
        raise ValueError(f"to does not fit: {error}") from None
    if (to == targets).any():
        raise ValueError(
            f"to must be another class than the target: for image {np.argmax(to == targets)} both "
            f"are {to[np.argmax(to == targets)]}."
        )
    return to


def _check_others(model, others):
    try:
        return check_images(model, others)
    except ValueError as error:
        raise ValueError(f"others do not fit: {error}") from None


def _check_range(points, norm, low, high):
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm!r}.")
    if (low is None) != (high is None) or (low is not None and not -np.inf < low < high < np.inf):
        raise ValueError(f"give both low and high, low < high, or neither: got {low}, {high}.")
    if norm == 1 and low is None:
        raise ValueError("norm=1 needs the range, low and high: without one, one value changes.")
    if low is not None and (points.min() < low or points.max() > high):
        raise ValueError(
            f"what is changed must keep to the range {low} to {high} from the start, and goes from "
            f"{points.min():g} to {points.max():g}."
        )


def _check_parts(segments, shape):
    """The parts of each image as int64 (N, H, W)."""
    segments = np.asarray(segments)
    if segments.ndim == 2:
        return np.broadcast_to(check_segments(segments, shape[1:]), shape)
    if segments.shape != shape:
        raise ValueError(
            f"segments must have shape {shape[1:]} or {shape}, as the images, got {segments.shape}."
        )
    return np.stack([check_segments(one, shape[1:]) for one in segments])


def _check_latents(model, generator, latents, images):
    """The latent vectors as float32, or a ValueError if they or the generator do not fit."""
    if not isinstance(generator, keras.Model):
        raise ValueError(f"generator must be a keras.Model, got {type(generator).__name__}.")
    check_graph(generator)
    made, taken = generator.outputs[0].shape[1:], model.inputs[0].shape[1:]
    if tuple(made) != tuple(taken):
        raise ValueError(
            f"the generator makes images of shape {made}, and the model takes {taken}."
        )
    latents, shape = np.asarray(latents), tuple(generator.inputs[0].shape[1:])
    if latents.shape != (len(images), *shape) or latents.dtype.kind not in "fiu":
        raise ValueError(
            f"latents must be numbers of shape {(len(images), *shape)}, one vector for each image, "
            f"got {latents.dtype} {latents.shape}."
        )
    if not np.isfinite(latents).all():
        raise ValueError("latents must be finite.")
    return latents.astype(np.float32)
