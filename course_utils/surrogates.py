"""Models that explain models: simple imitations, global and local, and what training points do."""

from typing import NamedTuple

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from course_utils._arrays import check_whole


class LinearSurrogate(NamedTuple):
    """A linear model that imitates another: what `linear_surrogate` returns."""

    weights: np.ndarray
    """float64 (..., K): for each score, the weight of each number of an input."""
    intercept: np.ndarray
    """float64 (K,)"""

    def predict(self, inputs):
        """Return the imitated scores of inputs (N, ...), float64 (N, K)."""
        weights = self.weights.reshape(-1, len(self.intercept))
        return as_rows(inputs, "inputs", len(weights)) @ weights + self.intercept


class TreeSurrogate(NamedTuple):
    """A decision tree that imitates another model: what `tree_surrogate` returns."""

    tree: DecisionTreeRegressor
    """scikit-learn's tree: sklearn.tree.export_text prints its rules."""

    def predict(self, inputs):
        """Return the imitated scores of inputs (N, ...), float64 (N, K)."""
        rows = as_rows(inputs, "inputs", self.tree.n_features_in_)
        return self.tree.predict(rows).reshape(len(rows), -1)


class Fidelity(NamedTuple):
    """How well a surrogate imitates a model."""

    r2: float
    """Share of the scores' variance that the surrogate accounts for: 1 is perfect, 0 no better
    than always answering the mean, and below 0 worse than that."""
    agreement: float
    """Share of the inputs to which both give the same class."""


class RowExplanation(NamedTuple):
    """What LIME found around one row of a table: a linear model of the score."""

    weights: np.ndarray
    """float64 (D,): what a standard deviation more of a column adds to the score; of a
    categorical column, what having the row's value adds."""
    intercept: float
    r2: float
    """How much of the scores' weighted variance the linear model accounts for, at most 1; NaN
    where the scores do not vary, so that there is nothing to account for."""


def linear_surrogate(inputs, scores, *, ridge=0.0):
    """Fit the linear model that comes closest to the scores another model gives to `inputs`.

    Parameters
    ----------
    inputs : array (N, ...)
        Rows of a table, or images.
    scores : array (N,) or (N, K)
        The other model's answers to them; logits rather than probabilities, because a line
        leaves 0..1.
    ridge : float
        Penalty on the squared weights; 0 is plain least squares.

    Returns
    -------
    LinearSurrogate
        Measure its `fidelity` on inputs it was not fitted to.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a value is not finite.
    """
    rows, scores = as_rows(inputs, "inputs"), as_scores(scores, len(inputs))
    weights, intercept = _least_squares(rows, scores, np.ones(len(rows)), ridge)
    return LinearSurrogate(weights.reshape(*np.shape(inputs)[1:], -1), intercept)


def tree_surrogate(inputs, scores, *, depth=3, seed=0):
    """Fit a decision tree to the scores another model gives to `inputs`.

    Parameters
    ----------
    inputs : array (N, ...)
    scores : array (N,) or (N, K)
    depth : int
        Questions that the tree may ask of an input, at least 1.
    seed : int
        Decides between questions that are equally good.

    Returns
    -------
    TreeSurrogate
        Measure its `fidelity` on inputs it was not fitted to.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a value is not finite.

    References
    ----------
    Craven and Shavlik, Extracting Tree-Structured Representations of Trained Networks (NeurIPS
    1995), which grows the tree with additional, artificial inputs; this one does not.
    """
    rows, scores = as_rows(inputs, "inputs"), as_scores(scores, len(inputs))
    check_whole("depth", depth, 1)
    return TreeSurrogate(
        DecisionTreeRegressor(max_depth=depth, random_state=seed).fit(rows, scores)
    )


def fidelity(surrogate_scores, model_scores, *, threshold=0.0):
    """Return how well a surrogate's scores imitate those of the model.

    Parameters
    ----------
    surrogate_scores, model_scores : array (N,) or (N, K)
        For inputs that the surrogate was not fitted to, at least two.
    threshold : float
        With one score, class 1 is a score above it: 0 for logits, 0.5 for probabilities. With
        several, the class is the largest.

    Returns
    -------
    Fidelity
        `r2` (over all scores, each about its own mean) and `agreement`.

    Raises
    ------
    ValueError
        If the shapes differ, or the model's scores do not vary.
    """
    model_scores = as_scores(model_scores, len(model_scores))
    surrogate_scores = as_scores(surrogate_scores, len(model_scores))
    if surrogate_scores.shape != model_scores.shape:
        raise ValueError(
            f"the surrogate gives scores of shape {surrogate_scores.shape}, "
            f"the model of shape {model_scores.shape}: they must be the same."
        )
    spread = ((model_scores - model_scores.mean(axis=0)) ** 2).sum()
    # The mean of equal floats need not be that float: the spread can be a rounding error.
    if spread == 0 or not np.ptp(model_scores, axis=0).any():
        raise ValueError("the model's scores do not vary: there is nothing to imitate.")
    classes = [
        s.argmax(axis=1) if s.shape[1] > 1 else s[:, 0] > threshold
        for s in (surrogate_scores, model_scores)
    ]
    r2 = 1 - ((surrogate_scores - model_scores) ** 2).sum() / spread
    return Fidelity(float(r2), float((classes[0] == classes[1]).mean()))


def explain_row(
    predict,
    row,
    training_rows,
    *,
    perturbations=None,
    samples=5000,
    categorical=(),
    kernel_width=None,
    ridge=1.0,
    seed=0,
):
    """Explain the score of one row of a table by LIME: a linear model fitted close to the row.

    Parameters
    ----------
    predict : function
        Rows (n, D) to one score for each, (n,).
    row : array (D,)
        The row to explain.
    training_rows : array (N, D)
        Give the mean and the standard deviation of each column, or the frequencies of its values
        if it is categorical.
    perturbations : array (samples, D), optional
        The artificial rows. If not given, the first one is `row`, and the others are drawn from
        a normal distribution for each column by itself, about the column's mean, not the row.
    samples : int
        How many rows to draw, where `perturbations` is not given.
    categorical : sequence of int
        The columns whose numbers are names. The linear model only knows whether an artificial
        row has the same value there as `row`.
    kernel_width : float, optional
        A row at distance d, in standard deviations, weighs sqrt(exp(-d**2 / kernel_width**2));
        three quarters of the square root of D if not given.
    ridge : float
        Penalty on the squared weights.
    seed : int
        Of the random rows.

    Returns
    -------
    RowExplanation

    Raises
    ------
    ValueError
        If the shapes do not fit, or a value is not finite.

    References
    ----------
    Ribeiro, Singh and Guestrin, "Why Should I Trust You?" (2016), and the defaults of its
    library for tables with discretize_continuous=False and feature_selection="none".
    """
    training_rows = as_rows(training_rows, "training_rows")
    columns = training_rows.shape[1]
    row = as_rows(np.reshape(row, (1, -1)), "row", columns)[0]
    if not set(categorical) <= set(range(columns)):
        raise ValueError(f"categorical columns must be from 0 to {columns - 1}, got {categorical}.")
    if kernel_width is None:
        kernel_width = 0.75 * np.sqrt(columns)
    if not kernel_width > 0:
        raise ValueError(f"kernel_width must be above 0, got {kernel_width!r}.")
    if perturbations is None:
        perturbations = _draw_rows(row, training_rows, samples, categorical, seed)
    perturbations = as_rows(perturbations, "perturbations", columns)
    scores = as_scores(predict(perturbations), len(perturbations))
    if scores.shape[1] != 1:
        raise ValueError(f"predict must give one score for each row, got {scores.shape}.")
    # A column that never varies says nothing; dividing by 1 keeps it finite.
    standardised = (perturbations - training_rows.mean(axis=0)) / _spreads(training_rows)
    here = (row - training_rows.mean(axis=0)) / _spreads(training_rows)
    for column in categorical:
        standardised[:, column] = perturbations[:, column] == row[column]
        here[column] = 1.0
    distances = np.linalg.norm(standardised - here, axis=1)
    closeness = np.exp(-((distances / kernel_width) ** 2) / 2)
    weights, intercept = _least_squares(standardised, scores, closeness, ridge)
    left = scores - standardised @ weights - intercept
    spread = closeness @ (scores - np.average(scores, axis=0, weights=closeness)) ** 2
    varies = spread > 0 and np.ptp(scores[closeness > 0]) > 0
    r2 = 1 - (closeness @ left**2) / spread if varies else np.full(1, np.nan)
    return RowExplanation(weights[:, 0], float(intercept[0]), float(r2[0]))


def _draw_rows(row, training_rows, samples, categorical, seed):
    """Artificial rows (samples, D): each column drawn by itself, and `row` as the first."""
    check_whole("samples", samples, 2)
    rng = np.random.default_rng(seed)
    drawn = rng.normal(training_rows.mean(axis=0), _spreads(training_rows), (samples, len(row)))
    for column in categorical:
        drawn[:, column] = rng.choice(training_rows[:, column], samples)
    drawn[0] = row
    return drawn


def _spreads(rows):
    """The standard deviation of each column; 1 where all its values are the same."""
    spreads = rows.std(axis=0)
    # Of equal floats it may be a rounding error of their mean.
    return np.where((np.ptp(rows, axis=0) > 0) & (spreads > 0), spreads, 1.0)


def _least_squares(rows, scores, importance, ridge):
    """The weights (D, K) and intercept (K,) of weighted ridge regression."""
    if not ridge >= 0:
        raise ValueError(f"ridge must be 0 or more, got {ridge!r}.")
    middle = np.average(rows, axis=0, weights=importance)
    level = np.average(scores, axis=0, weights=importance)
    root = np.sqrt(importance)[:, np.newaxis]
    x, y = root * (rows - middle), root * (scores - level)
    if ridge > 0:
        weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    else:
        weights = np.linalg.lstsq(x, y)[0]
    return weights, level - middle @ weights


def fit_logistic(inputs, labels, *, ridge, start=None):
    """Fit logistic regression by Newton's method, to the last digits.

    It minimises the sum of the log losses plus ridge / 2 times the sum of the squared weights;
    the intercept has no penalty. scikit-learn calls 1 / ridge C.

    Parameters
    ----------
    inputs : array (N, ...)
    labels : int array (N,)
        0 or 1; each must occur.
    ridge : float
        Above 0, so that there is one best fit.
    start : array (D + 1,), optional
        Where to begin, such as the fit to nearly the same points.

    Returns
    -------
    float64 (D + 1,)
        The weights, and the intercept as the last.

    Raises
    ------
    ValueError
        If the arguments do not fit.
    """
    rows, labels = _as_labelled(inputs, labels, ridge)
    theta = np.zeros(rows.shape[1]) if start is None else np.array(start, float)
    penalty = _penalty(rows, ridge)
    value = _log_loss(rows, labels, theta).sum() + penalty @ theta**2 / 2
    for _ in range(100):
        gradient = rows.T @ (_sigmoid(rows @ theta) - labels) + penalty * theta
        step = np.linalg.solve(_hessian(rows, theta, penalty), gradient)
        while True:  # a full step can go too far, a short enough one cannot
            moved = theta - step
            after = _log_loss(rows, labels, moved).sum() + penalty @ moved**2 / 2
            if after <= value or np.abs(step).max() < 1e-12:
                break
            step = step / 2
        theta, value = moved, after
        if np.abs(step).max() < 1e-10:
            break
    return theta


def influence(inputs, labels, test_input, test_label, *, ridge):
    """Estimate how the loss on a test input would change if each training point were left out.

    For the logistic regression of `fit_logistic`, without training again: the influence
    function, one inverse Hessian times the gradients of the losses.

    Parameters
    ----------
    inputs : array (N, ...)
        The training points.
    labels : int array (N,)
        0 or 1.
    test_input : array (...)
    test_label : int
        0 or 1.
    ridge : float
        As in `fit_logistic`.

    Returns
    -------
    float64 (N,)
        Positive for helpful points, without which the log loss would be higher; negative for
        harmful ones.

    Raises
    ------
    ValueError
        If the arguments do not fit.

    References
    ----------
    Koh and Liang, Understanding Black-box Predictions via Influence Functions (2017), equation
    2, whose up-weighting is taken away here: times -1/N.
    """
    theta = fit_logistic(inputs, labels, ridge=ridge)
    rows, labels = _as_labelled(inputs, labels, ridge)
    test_row, test_label = _as_test_point(test_input, test_label, rows)
    gradients = rows * (_sigmoid(rows @ theta) - labels)[:, np.newaxis]
    test_gradient = test_row * (_sigmoid(test_row @ theta) - test_label)
    return gradients @ np.linalg.solve(_hessian(rows, theta, _penalty(rows, ridge)), test_gradient)


def leave_one_out(inputs, labels, test_input, test_label, *, ridge):
    """Return how the loss on a test input does change when each training point is left out.

    As many fits as training points; parameters and result are those of `influence`. Each class
    needs at least two training points.
    """
    theta = fit_logistic(inputs, labels, ridge=ridge)
    rows, labels = _as_labelled(inputs, labels, ridge)
    if np.bincount(labels).min() < 2:
        raise ValueError("each class needs two training points: without its only one it is gone.")
    test_row, test_label = _as_test_point(test_input, test_label, rows)
    changes = np.empty(len(rows))
    for i in range(len(rows)):
        others = np.arange(len(rows)) != i
        fitted = fit_logistic(rows[others, :-1], labels[others], ridge=ridge, start=theta)
        changes[i] = _log_loss(test_row, test_label, fitted) - _log_loss(
            test_row, test_label, theta
        )
    return changes


def _as_labelled(inputs, labels, ridge):
    """Rows with a column of ones for the intercept, and their labels, after checking them."""
    rows, labels = as_rows(inputs, "inputs"), np.asarray(labels)
    if labels.shape != (len(rows),) or labels.dtype.kind not in "iub":
        raise ValueError(
            f"labels must be {len(rows)} whole numbers, 0 or 1, one for each input, "
            f"got {labels.dtype} of shape {labels.shape}."
        )
    if set(np.unique(labels)) != {0, 1}:
        raise ValueError(f"labels must be 0 and 1, and each must occur, got {np.unique(labels)}.")
    if not ridge > 0:
        raise ValueError(f"ridge must be above 0, got {ridge!r}.")
    return np.column_stack([rows, np.ones(len(rows))]), labels.astype(np.int64)


def _as_test_point(test_input, test_label, rows):
    if test_label not in (0, 1):
        raise ValueError(f"test_label must be 0 or 1, got {test_label!r}.")
    row = as_rows(np.reshape(test_input, (1, -1)), "test_input", rows.shape[1] - 1)[0]
    return np.append(row, 1.0), int(test_label)


def _penalty(rows, ridge):
    return np.append(np.full(rows.shape[1] - 1, float(ridge)), 0.0)


def _sigmoid(logits):
    return np.exp(-np.logaddexp(0, -logits))


def _log_loss(rows, labels, theta):
    logits = rows @ theta
    return np.logaddexp(0, logits) - labels * logits


def _hessian(rows, theta, penalty):
    p = _sigmoid(rows @ theta)
    return (rows * (p * (1 - p))[:, np.newaxis]).T @ rows + np.diag(penalty)


def as_rows(inputs, name, columns=None):
    """Return inputs (N, ...) as finite float64 rows (N, D), or say what is wrong with them."""
    inputs = np.asarray(inputs)
    if inputs.dtype.kind not in "fiub" or inputs.ndim < 2 or 0 in inputs.shape:
        raise ValueError(
            f"{name} must be numbers of shape (N, ...), got {inputs.dtype} of shape {inputs.shape}."
        )
    rows = inputs.reshape(len(inputs), -1).astype(np.float64)
    if columns is not None and rows.shape[1] != columns:
        raise ValueError(f"{name} must have {columns} numbers each, got {rows.shape[1]}.")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite, but hold NaN or infinity.")
    return rows


def as_scores(scores, count):
    """Return scores (N,) or (N, K) as finite float64 (N, K), or say what is wrong with them."""
    scores = np.asarray(scores)
    if scores.dtype.kind not in "fiub" or scores.ndim not in (1, 2) or len(scores) != count:
        raise ValueError(
            f"scores must be numbers of shape ({count},) or ({count}, K), "
            f"got {scores.dtype} of shape {scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite, but hold NaN or infinity.")
    return scores.reshape(count, -1).astype(np.float64)
