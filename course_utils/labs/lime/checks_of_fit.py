"""Checks of the lab on LIME: the weighted ridge regression behind its map."""

import numpy as np

from course_utils.labs._engine import TABLE, NotYet, as_array, call, compare, well_done


def fit(function, *, seed=0):
    """Check the weighted ridge regression where there are enough samples."""
    rng = np.random.default_rng(seed)
    for samples, regions, classes, ridge in ((40, 6, 3, 2.0), (60, 8, 1, 0.5)):
        _try_fit(function, rng, samples, regions, classes, ridge)
    well_done("Your weights are those of a weighted ridge regression.")


def fit_of_few(function, *, seed=0):
    """Check the weighted ridge regression where the ridge alone makes it solvable."""
    rng = np.random.default_rng(seed)
    _try_fit(function, rng, 7, 10, 2, 0.3)
    _try_fit(function, rng, 30, 5, 4, 1.0, always_shown=True)
    well_done("They are right with fewer samples than superpixels, too.")


def _try_fit(function, rng, samples, regions, classes, ridge, always_shown=False):
    masks = rng.integers(0, 2, (samples, regions))
    masks[0] = 1
    if always_shown:
        masks[:, 2] = 1
    truth = rng.normal(0, 2, (regions, classes))
    scores = masks @ truth + rng.normal(0, 1, (samples, classes)) + 3 + masks[:, :1] * masks[:, 1:2]
    near = np.exp(-rng.random(samples) * 4)
    right = _solve(masks, scores, near, ridge)
    rows = np.hstack([np.ones((samples, 1)), masks])
    centred, middle = masks - masks.mean(0), scores - scores.mean(0)
    mistakes = {
        "The samples all count the same. Weigh each by its proximity.": _solve(
            masks, scores, np.ones(samples), ridge
        ),
        "The proximity counts twice: both sides of the equations hold it once. Weighing the rows "
        "and the scores takes its square root.": _solve(masks, scores, near**2, ridge),
        "You weigh by the square root of the proximity. Each squared error counts by the "
        "proximity itself.": _solve(masks, scores, near**0.5, ridge),
        "You penalise the intercept. The ridge is for the superpixels' weights alone.": _solve(
            masks, scores, near, ridge, free=False
        ),
        "The ridge is missing.": _solve(masks, scores, near, 0.0),
        "There is no intercept. Put a column of ones before the masks.": np.vstack(
            [
                np.zeros((1, classes)),
                np.linalg.lstsq(
                    (masks.T * near) @ masks + ridge * np.eye(regions),
                    (masks.T * near) @ scores,
                )[0],
            ]
        ),
        "The ridge is squared.": _solve(masks, scores, near, ridge**2),
        "The ridge is multiplied by the number of samples.": _solve(
            masks, scores, near, ridge * samples
        ),
        "The proximity stands on one side of the equations only.": np.linalg.lstsq(
            rows.T @ rows + ridge * np.diag([0.0] + [1] * regions), (rows.T * near) @ scores
        )[0],
        "You take the plain means off masks and scores. Take the weighted ones.": _with_intercept(
            masks,
            scores,
            (centred.T * near) @ centred + ridge * np.eye(regions),
            (centred.T * near) @ middle,
        ),
    }
    if ridge == 1:
        mistakes.pop("The ridge is squared.")
    result = call(function, masks, scores, near, ridge)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise NotYet("fit should return two things: the weights, and the intercepts.")
    weights = as_array(result[0], "the array of weights")
    intercepts = as_array(result[1], "the array of intercepts")
    if weights.shape == (classes,) and intercepts.shape == (regions, classes):
        raise NotYet("the weights come first, and then the intercepts.")
    if weights.shape == (regions + 1, classes):
        raise NotYet("your weights hold the intercepts as well. Return them apart.")
    if classes > 1 and weights.shape == (regions,):
        raise NotYet("give the weights of every class, one column for each.")
    compare(
        weights,
        right[1:],
        what="the array of weights",
        axes=TABLE,
        mistakes={sentence: wrong[1:] for sentence, wrong in mistakes.items()},
    )
    compare(
        intercepts,
        right[0],
        what="the array of intercepts",
        mistakes={
            "This is the mean score. The intercept is the line's score where all is "
            "hidden.": scores.mean(0),
            "This is the weighted mean score. The intercept is the line's score where all is "
            "hidden.": np.average(scores, axis=0, weights=near),
            "This is the line's score where all is shown. The intercept is that where all is "
            "hidden.": right.sum(0),
        },
    )


def _solve(masks, scores, near, ridge, free=True):
    """Intercepts, then weights, of the weighted ridge regression, (regions + 1, classes)."""
    rows = np.hstack([np.ones((len(masks), 1)), masks])
    penalty = ridge * np.eye(rows.shape[1])
    if free:
        penalty[0, 0] = 0
    return np.linalg.lstsq((rows.T * near) @ rows + penalty, (rows.T * near) @ scores)[0]


def _with_intercept(masks, scores, normal, moments):
    weights = np.linalg.lstsq(normal, moments)[0]
    return np.vstack([scores.mean(0) - masks.mean(0) @ weights, weights])
