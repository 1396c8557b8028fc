"""surrogates: imitations of models whose truth is known, and influence against retraining."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from course_utils import surrogates
from course_utils.surrogates import fidelity, influence, leave_one_out

WEIGHTS = np.array([[2.0, 0.0], [-1.0, 3.0], [0.5, 0.0], [0.0, -2.0]])


def table(n=200, columns=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n, columns))


def two_classes(n=60, columns=3, seed=0):
    """Overlapping classes, so that no weight grows without bound."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return rng.normal(size=(n, columns)) + labels[:, np.newaxis] * 0.7, labels


def test_a_linear_model_is_imitated_exactly():
    scores = table() @ WEIGHTS + [1.0, -4.0]
    surrogate = surrogates.linear_surrogate(table(), scores)
    np.testing.assert_allclose(surrogate.weights, WEIGHTS, atol=1e-12)
    np.testing.assert_allclose(surrogate.intercept, [1, -4], atol=1e-12)
    new = table(seed=1)
    assert fidelity(surrogate.predict(new), new @ WEIGHTS + [1, -4]) == pytest.approx((1, 1))


def test_the_weights_of_images_are_images():
    images = table(50, 12).reshape(50, 3, 4, 1)
    scores = images.sum(axis=(1, 2))[:, 0] + 2 * images[:, 1, 2, 0]
    surrogate = surrogates.linear_surrogate(images, scores)
    expected = np.ones((3, 4, 1, 1))
    expected[1, 2] = 3
    np.testing.assert_allclose(surrogate.weights, expected, atol=1e-12)
    np.testing.assert_allclose(surrogate.predict(images)[:, 0], scores, atol=1e-12)


def test_ridge_is_that_of_scikit_learn():
    scores = np.sin(table() * 2).sum(axis=1)
    ours = surrogates.linear_surrogate(table(), scores, ridge=7.0)
    theirs = Ridge(alpha=7.0).fit(table(), scores)
    np.testing.assert_allclose(ours.weights[:, 0], theirs.coef_, atol=1e-12)
    np.testing.assert_allclose(ours.intercept, theirs.intercept_, atol=1e-12)


def test_a_tree_finds_a_planted_rule():
    def rule(rows):
        return np.where(rows[:, 2] <= 0.3, np.where(rows[:, 0] <= -0.5, 5.0, 1.0), -2.0)

    rows = np.random.default_rng(0).uniform(-1, 1, (2000, 4))
    surrogate = surrogates.tree_surrogate(rows, rule(rows), depth=2)
    nodes = surrogate.tree.tree_
    assert nodes.feature[0] == 2
    assert set(nodes.feature[nodes.feature >= 0]) == {0, 2}
    assert nodes.threshold[0] == pytest.approx(0.3, abs=0.01)
    new = np.random.default_rng(1).uniform(-1, 1, (1000, 4))
    assert fidelity(surrogate.predict(new), rule(new)).r2 > 0.97
    # One question is not enough for a rule of two.
    shallow = surrogates.tree_surrogate(rows, rule(rows), depth=1)
    assert fidelity(shallow.predict(new), rule(new)).r2 < 0.9


def test_fidelity_counts_what_it_says():
    model = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    other = model.copy()
    other[0] = [0.0, 1.0]
    # Sums of squares about the columns' means: 2.75 and 6; the error is 1 + 1.
    assert fidelity(other, model) == pytest.approx((1 - 2 / 8.75, 0.75))
    means = np.repeat(model.mean(axis=0, keepdims=True), 4, axis=0)
    assert fidelity(means, model).r2 == pytest.approx(0)
    assert fidelity([0.2, 0.6, 0.6], [0.4, 0.4, 0.9], threshold=0.5).agreement == pytest.approx(
        2 / 3
    )
    assert fidelity([0.2, 0.6, 0.6], [0.4, 0.4, 0.9]).agreement == 1


def test_lime_gives_the_coefficients_of_a_linear_model_per_standard_deviation():
    training = table(300) * [1, 10, 0.1, 5] + 3
    slopes = np.array([2.0, -1.0, 30.0, 0.0])
    found = surrogates.explain_row(lambda r: r @ slopes + 7, training[4], training, ridge=0.0)
    np.testing.assert_allclose(found.weights, slopes * training.std(axis=0), atol=1e-9)
    assert found.intercept == pytest.approx(training.mean(axis=0) @ slopes + 7)
    assert found.r2 == pytest.approx(1)


def test_lime_says_what_having_the_value_of_a_category_adds():
    rng = np.random.default_rng(0)
    training = np.column_stack([rng.normal(size=500), rng.integers(0, 4, 500)])
    bonus = np.array([0.0, 1.0, 9.0, 1.0])
    found = surrogates.explain_row(
        lambda r: 2 * r[:, 0] + bonus[r[:, 1].astype(int)],
        np.array([0.5, 2.0]),
        training,
        categorical=[1],
        kernel_width=1e6,
        samples=20000,
        ridge=0.0,
    )
    others = bonus[training[training[:, 1] != 2, 1].astype(int)].mean()
    assert found.weights[1] == pytest.approx(9 - others, abs=0.05)
    assert found.weights[0] == pytest.approx(2 * training[:, 0].std(), abs=0.02)


def test_lime_finds_the_slope_where_the_row_is():
    training = table(500, 1)
    steep = surrogates.explain_row(
        lambda r: r[:, 0] ** 2, np.array([2.0]), training, kernel_width=0.1, ridge=0.0
    )
    flat = surrogates.explain_row(
        lambda r: r[:, 0] ** 2, np.array([0.0]), training, kernel_width=0.1, ridge=0.0
    )
    assert steep.weights[0] == pytest.approx(4 * training.std(), rel=0.03)
    assert abs(flat.weights[0]) < 0.1


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    def explain(seed):
        return surrogates.explain_row(
            lambda r: np.tanh(r).sum(axis=1), table()[0], table(), samples=100, seed=seed
        ).weights

    np.testing.assert_array_equal(explain(3), explain(3))
    assert not np.array_equal(explain(3), explain(4))


def test_a_column_that_never_varies_weighs_nothing():
    training = np.column_stack([table(100, 2), np.full(100, 5.0)])
    found = surrogates.explain_row(lambda r: r[:, 0] + r[:, 2] * 0, training[0], training)
    assert np.isfinite(found.weights).all()
    assert abs(found.weights[2]) < 1e-3


def test_where_the_scores_do_not_vary_there_is_no_variance_to_account_for():
    found = surrogates.explain_row(lambda r: r[:, 0] * 0 + 2, table()[0], table())
    assert np.isnan(found.r2)
    assert found.weights == pytest.approx(np.zeros(4))
    assert found.intercept == 2


def test_logistic_regression_is_that_of_scikit_learn():
    inputs, labels = two_classes()
    theirs = LogisticRegression(C=1 / 0.5, tol=1e-12, max_iter=10000).fit(inputs, labels)
    ours = surrogates.fit_logistic(inputs, labels, ridge=0.5)
    np.testing.assert_allclose(ours, [*theirs.coef_[0], *theirs.intercept_], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_logistic_regression_ends_where_the_gradient_is_zero(scale):
    inputs, labels = two_classes(seed=2)
    inputs = inputs * scale
    theta = surrogates.fit_logistic(inputs, labels, ridge=0.1)
    rows = np.column_stack([inputs, np.ones(60)])
    gradient = rows.T @ (1 / (1 + np.exp(-rows @ theta)) - labels) + 0.1 * theta * [1, 1, 1, 0]
    assert np.abs(gradient).max() < 1e-7 * max(scale, 1)


def test_influence_is_what_leaving_a_point_out_does():
    inputs, labels = two_classes(80)
    for test_input, test_label in zip(*two_classes(6, seed=9), strict=True):
        about = inputs, labels, test_input, test_label
        guess, exact = influence(*about, ridge=1.0), leave_one_out(*about, ridge=1.0)
        assert np.corrcoef(guess, exact)[0, 1] > 0.99
        clear = np.abs(exact) > 0.1 * np.abs(exact).max()
        assert (np.sign(guess) == np.sign(exact))[clear].all()


def test_influence_is_the_derivative_by_the_weight_of_a_point():
    """Of 500 copies of each point, one is a 500th of its weight: small enough for a derivative."""
    inputs, labels = two_classes(20)
    new, copies, ridge = np.array([0.2, -0.1, 0.4]), 500, 5.0

    def loss(rows, classes):
        theta = surrogates.fit_logistic(rows, classes, ridge=copies * ridge)
        return np.logaddexp(0, -(new @ theta[:-1] + theta[-1]))

    many, classes = np.repeat(inputs, copies, axis=0), np.repeat(labels, copies)
    found = influence(inputs, labels, new, 1, ridge=ridge)
    for i in (0, 7, 19):
        one = i * copies
        change = loss(np.delete(many, one, 0), np.delete(classes, one)) - loss(many, classes)
        assert copies * change == pytest.approx(found[i], rel=2e-3)


def test_leave_one_out_is_retraining_by_someone_else():
    inputs, labels = two_classes(30)
    new, label = np.array([0.2, -0.1, 0.4]), 1

    def loss(rows, classes):
        fit = LogisticRegression(C=0.5, tol=1e-12, max_iter=10000).fit(rows, classes)
        return -np.log(fit.predict_proba(new[np.newaxis])[0, label])

    exact = leave_one_out(inputs, labels, new, label, ridge=2.0)
    for i in (0, 7, 29):
        expected = loss(np.delete(inputs, i, 0), np.delete(labels, i)) - loss(inputs, labels)
        assert exact[i] == pytest.approx(expected, abs=1e-6)


def test_a_twin_helps_and_a_mislabelled_twin_harms():
    inputs, labels = two_classes(80)
    new = np.array([1.0, 2.0, -1.0])
    inputs[:2], labels[:2] = new, [1, 0]
    found = influence(inputs, labels, new, 1, ridge=1.0)
    assert found[0] > 0 > found[1]
    assert influence(inputs, labels, new, 0, ridge=1.0)[0] < 0


@settings(max_examples=15)
@given(st.permutations(range(40)))
def test_the_order_of_the_points_does_not_matter(order):
    inputs, labels = two_classes(40)
    found = influence(inputs, labels, inputs[3], 1, ridge=0.3)
    shuffled = influence(inputs[order], labels[order], inputs[3], 1, ridge=0.3)
    np.testing.assert_allclose(shuffled, found[order], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: surrogates.linear_surrogate(table(), np.ones(3)), r"shape \(200,\)"),
        (lambda: surrogates.linear_surrogate(table() * np.nan, np.ones(200)), "finite"),
        (lambda: surrogates.linear_surrogate(table(), table()[:, 0], ridge=-1), "ridge"),
        (lambda: surrogates.tree_surrogate(table(), np.ones(200), depth=0), "depth"),
        (lambda: fidelity(np.ones((4, 2)), np.ones((4, 3))), "must be the same"),
        (lambda: fidelity(np.ones(4), np.ones(4)), "do not vary"),
        (lambda: surrogates.explain_row(np.sum, table()[0, :3], table()), "row must have 4"),
        (lambda: surrogates.explain_row(lambda r: r, table()[0], table()), "one score"),
        (
            lambda: surrogates.explain_row(len, table()[0], table(), categorical=[4]),
            "from 0 to 3",
        ),
        (lambda: surrogates.explain_row(len, table()[0], table(), kernel_width=0), "above 0"),
        (lambda: surrogates.explain_row(len, table()[0], table(), samples=1), "samples"),
        (lambda: influence(table(), np.ones(200, int), table()[0], 1, ridge=1), "must occur"),
        (lambda: influence(*two_classes(), np.zeros(3), 2, ridge=1), "test_label"),
        (lambda: influence(*two_classes(), np.zeros(4), 1, ridge=1), "3 numbers"),
        (lambda: influence(*two_classes(), np.zeros(3), 1, ridge=0), "above 0"),
        (
            lambda: leave_one_out(table(3), np.array([0, 0, 1]), table()[0], 1, ridge=1),
            "two training points",
        ),
    ],
)
def test_it_says_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# The mean of equal floats need not be that float: no variance may be read from its rounding.
ALIKE = [0.1, 0.3, 0.7, -1.1]


@pytest.mark.parametrize("value", ALIKE)
@pytest.mark.parametrize("count", [3, 5, 6, 7, 99])
def test_scores_that_are_all_equal_are_nothing_to_imitate_whatever_their_mean(count, value):
    model = np.full((count, 2), value)
    with pytest.raises(ValueError, match="do not vary"):
        fidelity(model + np.arange(count)[:, np.newaxis], model)


@pytest.mark.parametrize("value", ALIKE)
def test_lime_accounts_for_nothing_where_equal_scores_have_another_mean(value):
    for seed in range(5):
        found = surrogates.explain_row(
            lambda r: np.full(len(r), value), table()[0], table(), samples=100, seed=seed
        )
        assert np.isnan(found.r2)


@pytest.mark.parametrize("value", ALIKE)
def test_lime_takes_a_column_that_never_varies_for_the_same_whatever_its_number(value):
    def explain(constant):
        training = np.column_stack([table(100, 2), np.full(100, constant)])
        return surrogates.explain_row(lambda r: np.sin(r[:, 0]) + r[:, 1], training[0], training)

    np.testing.assert_allclose(explain(value).weights[:2], explain(2.0).weights[:2], atol=1e-9)
    assert explain(value).r2 == pytest.approx(explain(2.0).r2, abs=1e-9)
