"""Another variant of a lab: every network answers as it did, and the answers are other ones."""

import sys
from itertools import pairwise
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest

from course_utils import checks, datasets, inspection, labs, models
from course_utils.labs import _variant

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "notebooks/labs/tools"))

import answers
import grade
import release

SOME = (1, 2, 3, 6, 7, 29)


@pytest.fixture(autouse=True)
def back_to_the_course_s_own():
    yield
    labs.variant(0)


def test_a_variant_is_a_number_and_stays():
    assert labs.variant() == 0
    assert labs.variant(7) == labs.variant() == 7
    for wrong in (-1, 1.5, True):
        with pytest.raises(ValueError, match="whole number"):
            labs.variant(wrong)


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_in_variants_side_by_side_each_of_a_few_things_has_another_place(count):
    orders = []
    for number in range(100):
        labs.variant(number)
        orders.append(_variant.order("some", count))
        assert sorted(orders[-1]) == list(range(count))
    if count <= 5:
        assert all((one != next_).all() for one, next_ in pairwise(orders))
    assert len({tuple(o) for o in orders}) >= count


@pytest.mark.parametrize("name", labs.PILL_NETWORKS)
def test_pills_turned_and_in_other_colours_are_told_as_before(name):
    def scores():
        logits = models.logit_model(labs.load_pills_network(name))
        return np.asarray(logits(labs.load_pills().images[:20]))

    pair, own = labs.PILL_NETWORKS[:2], {}
    for other in pair if name in pair else (name,):
        logits = models.logit_model(labs.load_pills_network(other))
        own[other] = np.asarray(logits(labs.load_pills().images[:20]))
    for number in SOME:
        labs.variant(number)
        assert any(np.allclose(scores(), before, atol=1e-3) for before in own.values())


def test_tickets_are_read_as_before_and_their_shelves_have_other_numbers():
    own = {}
    for name in labs.TICKET_NETWORKS:
        tickets = labs.load_tickets()
        p = labs.load_tickets_network(name).predict(tickets.images[:40], verbose=0)
        own[name] = p[np.arange(40), tickets.shelves[:40]]
    for number in SOME:
        labs.variant(number)
        tickets = labs.load_tickets()
        for name in labs.TICKET_NETWORKS:
            p = labs.load_tickets_network(name).predict(tickets.images[:40], verbose=0)
            p = p[np.arange(40), tickets.shelves[:40]]
            assert any(np.allclose(p, before, atol=1e-5) for before in own.values())


def test_stripes_are_told_as_before_by_filters_in_another_order():
    images = labs.make_stripes(20, seed=3).images
    before = labs.load_stripes_network().predict(images, verbose=0)
    dead = set()
    for number in SOME:
        labs.variant(number)
        network = labs.load_stripes_network()
        np.testing.assert_allclose(network.predict(images, verbose=0), before, atol=1e-5)
        maps = inspection.feature_maps(network, labs.make_stripes(200, seed=4).images, "conv_1")
        dead.add(tuple(np.flatnonzero((maps == 0).all((0, 1, 2)))))
    assert len(dead) == len(SOME)


def test_as_many_labels_of_two_other_classes_change_places():
    truth, pairs = true_labels(), set()
    for number in (0, *SOME):
        labs.variant(number)
        found = labs.load_post_digits("reviewed").labels
        pair = np.unique(found[found != truth])
        assert len(pair) == 2
        assert np.bincount(found[found != truth])[pair].tolist() == [14, 14]
        pairs.add(tuple(pair))
    assert len(pairs) >= len(SOME)


def true_labels():
    (a, b), (c, d) = datasets.load_digits()
    known = {x.tobytes(): y for x, y in [*zip(a, b, strict=True), *zip(c, d, strict=True)]}
    return np.array([known[x.tobytes()] for x in labs.load_post_digits("reviewed").images])


def blind_and_pixels():
    pills, found = labs.load_pills(), None
    for name in labs.PILL_NETWORKS:
        logits = models.logit_model(labs.load_pills_network(name))
        for channel in range(3):
            mixed = pills.images.copy()
            mixed[..., channel] = pills.images[::-1, ..., channel]
            if np.abs(np.asarray(logits(mixed)) - np.asarray(logits(pills.images))).max() < 1e-5:
                found = name, channel
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    maps = [np.abs(labs.pills_gradient("cedar", *pair)(pills.images)) for pair in pairs]
    plain = np.sum(maps, axis=(0, 1, 4))
    return *found, plain >= np.sort(plain, axis=None)[-8]


def pills_earn(network, channel, pixels):
    assert pixels.shape == (20, 28)
    yield lambda: checks.gradients.blind(network, channel, seed=1)
    yield lambda: checks.gradients.read_pixels("cedar", pixels, seed=1)


def shortcut():
    tickets, kept = labs.load_tickets(), {}
    for name in labs.TICKET_NETWORKS:
        network = labs.load_tickets_network(name)
        for k in range(5):
            own = tickets.shelves == k
            halves = tickets.shelf_masks[own][..., np.newaxis]
            cut = [np.where(half, 0, tickets.images[own]) for half in (halves, ~halves)]
            kept[name, k] = [
                np.mean(network.predict(x, verbose=0).argmax(axis=1) == k) for x in cut
            ]
    name, shelf = max(kept, key=lambda pair: np.subtract(*kept[pair]))
    return name, shelf, int(np.bincount(tickets.coats[tickets.shelves == shelf]).argmax())


def tickets_earn(network, shelf, coat):
    yield lambda: checks.grad_cam.suspect(network, shelf, seed=1)
    yield lambda: checks.grad_cam.companion(network, shelf, coat, seed=1)


def damaged():
    maps = inspection.feature_maps(
        labs.load_stripes_network(), labs.make_stripes(600, seed=7).images, "conv_1"
    )
    dead = np.flatnonzero((maps == 0).all(axis=(0, 1, 2)))
    alive = np.setdiff1d(np.arange(maps.shape[-1]), dead)
    alike = np.triu(np.corrcoef(maps[..., alive].reshape(-1, len(alive)).T), 1)
    return dead, alive[list(np.unravel_index(alike.argmax(), alike.shape))]


def stripes_earn(dead, pair):
    network = labs.load_stripes_network()
    yield lambda: checks.filters.damage_complete(dead, pair, network, seed=3)


def exchanged():
    digits, network = labs.load_post_digits("reviewed"), labs.load_post_network()
    part = keras.Model(network.inputs[0], network.get_layer("hidden").output)
    hidden = np.asarray(part(digits.images))
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    near = digits.labels[np.argsort(-cosines, axis=1)[:, :10]]
    votes = np.array([np.bincount(n, minlength=10).argmax() for n in near])
    low, high = np.sort([digits.labels, votes], axis=0)
    table = np.zeros((10, 10), int)
    np.add.at(table, (low, high), low != high)
    mixed = np.unravel_index(table.argmax(), table.shape)
    wrong = (votes != digits.labels) & np.isin(low, mixed) & np.isin(high, mixed)
    return np.flatnonzero(wrong), mixed


def digits_earn(found, mixed):
    given = labs.load_post_digits("reviewed").labels
    yield lambda: checks.embeddings.suspects_found(found, mixed, given, true_labels())


def earned(tests):
    count = 0
    for test in tests:
        try:
            test()
            count += 1
        except checks.NotYet:
            pass
    return count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solve", "tests", "of"),
    [
        (blind_and_pixels, pills_earn, 2),
        (shortcut, tickets_earn, 2),
        (damaged, stripes_earn, 1),
        (exchanged, digits_earn, 1),
    ],
)
def test_thirty_variants_are_solved_by_the_lab_s_way_and_by_no_neighbour_s(
    solve, tests, of, capsys
):
    solved = {}
    for number in range(31):
        labs.variant(number)
        solved[number] = solve()
        assert earned(tests(*solved[number])) == of
    for number in range(30):
        labs.variant(number)
        assert not earned(tests(*solved[number + 1]))


def test_the_number_is_written_into_notebooks_and_into_nothing_else():
    for name in release.names():
        notebook = nbformat.read(release.LABS / name / f"{name}.ipynb", 4)
        other = release.with_variant(notebook, 17)
        pairs = zip(notebook.cells, other.cells, strict=True)
        changed = [(one.source, new.source) for one, new in pairs if one != new]
        assert len(changed) == 1
        assert changed[0][0].replace("labs.variant(0)", "labs.variant(17)") == changed[0][1]


@pytest.mark.parametrize(
    "table", ["student,mail\nAda Lovelace,a@b\nÉmile,c\n", "mail,Name\na,Ada Lovelace\nc,Émile\n"]
)
def test_students_side_by_side_in_a_roster_have_numbers_side_by_side(table, tmp_path):
    (tmp_path / "roster.csv").write_text(table, encoding="utf-8")
    numbers = release.for_each(tmp_path / "roster.csv", 2)
    assert numbers == {"Ada Lovelace": 2001, "Émile": 2002}


@pytest.mark.parametrize("table", ["", "student\n", "student\nAda\nAda\n", "student,x\n,1\n"])
def test_a_roster_without_a_name_for_each_is_refused(table, tmp_path):
    (tmp_path / "roster.csv").write_text(table)
    with pytest.raises(ValueError, match="name"):
        release.for_each(tmp_path / "roster.csv", 1)


def test_each_student_s_variant_is_the_teacher_s_and_not_what_the_notebook_says(tmp_path):
    path = tmp_path / "variants.csv"
    path.write_text("student,variant\nAda Lovelace,1001\nÉmile,1002\n", encoding="utf-8")
    variants = grade.read_variants(path)
    assert [grade.variant_of(s, variants) for s in ("ada_lovelace", "Émile", "Bob")] == [
        *(1001, 1002, None)
    ]
    assert grade.variant_of("Bob", 7) == 7
    source = nbformat.read(release.LABS / "filters/filters.ipynb", 4)
    handed = [answers.as_cell(cell) for cell in release.with_variant(source, 1002).cells]
    lab = [release.with_variant(source, 1001)] * 2
    rebuilt, _ = answers.rebuild(*lab, handed)
    text = "\n".join(cell.source for cell in rebuilt.cells)
    assert "labs.variant(1001)" in text
    assert "labs.variant(1002)" not in text
    path.write_text("who,what\n")
    with pytest.raises(ValueError, match="table of variants"):
        grade.read_variants(path)
