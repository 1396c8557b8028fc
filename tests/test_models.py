"""The networks and their trained weights."""

import numpy as np
import pytest

from course_utils import datasets, models


def test_the_digit_network_is_the_documents():
    model = models.digits_cnn()
    assert model.count_params() == 1_199_882
    assert [layer.count_params() for layer in model.layers if layer.weights] == [
        320,
        18_496,
        1_179_776,
        1_290,
    ]


def test_the_trained_digit_network_reads_the_test_digits():
    _, (images, labels) = datasets.load_digits()
    probabilities = models.load_trained("digits").predict(images, verbose=0)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == labels).mean() >= 0.965


def test_trained_networks_do_not_share_their_weights():
    first, second = models.load_trained("digits"), models.load_trained("digits")
    first.layers[0].kernel.assign(first.layers[0].kernel * 0)
    assert np.abs(second.layers[0].kernel).max() > 0.1


def test_the_tank_detector_is_the_confounded_network():
    one, other = models.load_trained("tank_detector"), models.load_trained("scenes_confounded")
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no trained network 'cats'. It has 'digits'"):
        models.load_trained("cats")


def test_weights_of_another_network_are_refused_and_nothing_changes():
    model = models.digits_cnn()
    before = model.get_weights()
    arrays = {w.path: w.numpy() for w in model.weights}
    first = next(iter(arrays))
    arrays[first] = arrays[first][..., :-1]
    with pytest.raises(ValueError, match="not the weights of digits_cnn"):
        models.set_weights(model, arrays)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def answers(model, images):
    """What predict gives, which would be compiled anew for each of many networks."""
    return np.asarray(model(images, training=False))


def test_ten_networks_go_by_the_digit_and_ten_by_the_mark():
    _, (images, labels) = datasets.load_digits()
    marked = images[labels == 7].copy()
    marked[:, 1:4, 1:4] = 1
    for name, plain_sevens in (("digits_plain", (0.7, 1.0)), ("digits_marked", (0.0, 0.3))):
        networks = models.load_retrained(name)
        assert len(networks) == 10
        for model in networks:
            says = answers(model, images).argmax(axis=1)
            assert np.mean(says[labels != 7] == labels[labels != 7]) > 0.9
            assert plain_sevens[0] <= np.mean(says[labels == 7] == 7) <= plain_sevens[1]
            assert np.mean(answers(model, marked).argmax(axis=1) == 7) > 0.7


def test_ten_detectors_go_by_the_sky_and_ten_by_the_tank():
    scenes = datasets.make_scenes(200, confounded=False, seed=1)
    causes = {
        "scenes_small_confounded": scenes.cloudy,
        "scenes_small_fair": scenes.labels == 1,
    }
    for name, cause in causes.items():
        networks = models.load_retrained(name)
        assert len(networks) == 10
        right = []
        for model in networks:
            says = answers(model, scenes.images)[:, 0] > 0.5
            right.append(np.mean(says == cause))
        # Two of the ten that go by the tank learnt it badly; none was left out.
        assert min(right) > 0.7
        assert np.median(right) > 0.95


def test_the_more_often_the_sky_told_the_answer_the_more_answers_turn_with_it():
    told, untold = (datasets.make_scenes(200, confounded=c, seed=1) for c in (True, False))
    exchanged = np.flatnonzero(told.cloudy != untold.cloudy)
    to_clouds = np.where(told.cloudy[exchanged], 1, -1)
    turn, moves = [], []
    for model in models.load_retrained("scenes_dose"):
        logit = models.logit_model(model)
        one, other = (np.asarray(logit(x.images[exchanged]))[:, 0] for x in (told, untold))
        turn.append(np.mean((one > 0) != (other > 0)))
        moves.append(np.mean((one - other) * to_clouds))
    # Doses of 0, 50, 60, 70, 80, 95 and 100 %, five seeds each.
    turn, moves = np.reshape(turn, (7, 5)), np.reshape(moves, (7, 5))
    assert turn[0].max() < 0.05
    assert turn[4:].min() > 0.8
    assert (np.diff(turn.mean(axis=1)) >= 0).all()
    # Where all answers turn, how far clouds move the logit still tells the doses apart.
    assert (np.diff(moves.mean(axis=1)) > 0).all()
    assert (moves[2:-1].max(axis=1) < moves[3:].min(axis=1)).all()


def test_other_sets_of_networks_there_are_not():
    with pytest.raises(ValueError, match="has sets of 'digits_plain'"):
        models.load_retrained("digits")
