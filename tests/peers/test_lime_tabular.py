"""explain_row against the library of LIME's authors, on the very rows the library drew."""

import numpy as np
import pytest

from course_utils.surrogates import explain_row

lime_tabular = pytest.importorskip("lime.lime_tabular", reason="needs the lime library")


def score(rows):
    """A model that is nothing like a line."""
    return 1 / (1 + np.exp(-rows[:, 0] * rows[:, 1] + np.sin(2 * rows[:, 2])))


def training_rows():
    rng = np.random.default_rng(0)
    return np.column_stack([rng.normal(3, 2, (300, 3)), rng.integers(0, 4, 300)])


@pytest.mark.parametrize(("kernel_width", "categorical"), [(None, []), (0.8, []), (None, [3])])
def test_it_agrees_with_the_library(kernel_width, categorical):
    training, drawn = training_rows(), []

    def probabilities(rows):
        drawn.append(rows.copy())
        return np.column_stack([1 - score(rows), score(rows)])

    explainer = lime_tabular.LimeTabularExplainer(
        training,
        categorical_features=categorical,
        discretize_continuous=False,
        kernel_width=kernel_width,
        feature_selection="none",
        random_state=0,
    )
    theirs = explainer.explain_instance(training[7], probabilities, num_samples=500)
    ours = explain_row(
        score,
        training[7],
        training,
        perturbations=drawn[0],
        categorical=categorical,
        kernel_width=kernel_width,
    )
    weights = dict(theirs.local_exp[1])
    np.testing.assert_allclose(ours.weights, [weights[i] for i in range(4)], atol=1e-10)
    assert ours.intercept == pytest.approx(theirs.intercept[1], abs=1e-10)
    assert ours.r2 == pytest.approx(theirs.score, abs=1e-10)


def test_its_own_rows_are_drawn_from_the_same_distribution():
    training = training_rows()
    explainer = lime_tabular.LimeTabularExplainer(
        training, discretize_continuous=False, feature_selection="none", random_state=0
    )
    theirs = explainer.explain_instance(
        training[7], lambda r: np.column_stack([1 - score(r), score(r)]), num_samples=20000
    )
    ours = explain_row(score, training[7], training, samples=20000)
    weights = dict(theirs.local_exp[1])
    np.testing.assert_allclose(ours.weights, [weights[i] for i in range(4)], atol=0.02)
