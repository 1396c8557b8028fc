"""Another variant of a lab: every network answers as it did, and the answers are other ones."""

import ast
import sys
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest
import tensorflow as tf

from course_utils import checks, datasets, inspection, labs, lime_image, models, occlusion
from course_utils.labs import _variant
from course_utils.labs.lime.material import FAMILY as MEADOWS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "notebooks/labs/tools"))

import answers
import release

SOME = (1, 2, 3, 6, 7, 29)
FAMILY = range(6)  # of networks whose defect is in the training


def keys(lab):
    """What the hidden tests of a lab compare answers with: {name: its value}."""
    found = {}
    for cell in nbformat.read(release.LABS / lab / f"{lab}.ipynb", 4).cells:
        if cell.cell_type == "code" and "HIDDEN TESTS\n" in cell.source:
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.Assign):
                    value = eval(compile(ast.Expression(node.value), "key", "eval"))
                    assert found.setdefault(node.targets[0].id, value) == value
    return found


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
        p = np.asarray(labs.load_tickets_network(name)(tickets.images[:40]))
        own[name] = p[np.arange(40), tickets.shelves[:40]]
    for number in SOME:
        labs.variant(number)
        tickets = labs.load_tickets()
        for name in labs.TICKET_NETWORKS:
            p = np.asarray(labs.load_tickets_network(name)(tickets.images[:40]))
            p = p[np.arange(40), tickets.shelves[:40]]
            assert any(np.allclose(p, before, atol=1e-5) for before in own.values())


def test_stripes_are_told_as_before_by_filters_in_another_order():
    images = labs.make_stripes(20, seed=3).images
    before = np.asarray(labs.load_stripes_network()(images))
    dead = set()
    for number in SOME:
        labs.variant(number)
        network = labs.load_stripes_network()
        np.testing.assert_allclose(network(images), before, atol=1e-5)
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


def scans_of_one(label, place=None, fill=0.0):
    """The scans of a class, with a block covered by a fill."""
    scans = labs.load_scans("first")
    images = scans.images[scans.labels == label].copy()
    if place is not None:
        block = np.s_[:, place[0] : place[0] + 4, place[1] : place[1] + 4]
        images[block] = scans.images.mean(0)[block[1:]] if fill is None else fill
    return images


def marked():
    return _marked(labs.member(len(FAMILY)))


@cache
def _marked(member):
    scans, network = labs.load_scans("first"), labs.scan_network()
    logits = models.logit_model(network)

    def drops(k, stride):
        fill, own = scans.images[scans.labels != k].mean(0), scans.images[scans.labels == k]
        options = {"patch": 4, "stride": stride, "fill": fill, "score": "logit"}
        maps = occlusion.occlusion_map(network, own[:10], k, **options)
        return np.where(own.mean(0)[..., 0] < 0.4, maps.mean(0), 0)

    label = int(np.argmax([drops(k, 2).max() for k in range(10)]))
    sums = np.lib.stride_tricks.sliding_window_view(drops(label, 1), (4, 4)).sum((2, 3))
    place = tuple(map(int, np.unravel_index(sums.argmax(), sums.shape)))
    three = (scans_of_one(label, *how) for how in ((), (place, 0.0), (place, None)))
    whole, black, covered = (np.asarray(logits(images)) for images in three)
    shares = [np.mean(scores.argmax(1) == label) for scores in (whole, covered)]
    return label, place, shares, [np.mean((whole - s)[:, label]) for s in (black, covered)]


def scans_earn(label, place, shares, costs):
    of = keys("occlusion")["KEYS"]
    yield lambda: checks.occlusion.experiment(shares, label, place)
    yield lambda: checks.occlusion.class_is(label, of)
    yield lambda: checks.occlusion.place_is(place, of)
    yield lambda: checks.occlusion.fill_cost(costs, 0.0, label, place)
    yield lambda: checks.occlusion.blind_fill(0.0, label, place, of)


def shares_with(kind, part):
    """How many of 40 new mushrooms are read as their kind, with nothing about them or one thing."""
    things, network, shares = np.zeros((40, 4), bool), labs.meadow_network(), []
    for there in (False, True):
        things[:, part - 2] = there
        images = labs.draw_meadows(np.full(40, kind), things, seed=5).images
        shares.append(np.mean(np.asarray(network(images)).argmax(1) == kind))
    return shares


def beside():
    return _beside(MEADOWS[labs.member(len(MEADOWS))])


@cache
def _beside(_):
    meadows, network, mass = labs.load_meadows(), labs.meadow_network(), np.zeros((3, 6))
    for kind in range(3):
        for i in np.flatnonzero(meadows.labels == kind)[:8]:
            image = meadows.images[i]
            cut = lime_image.superpixels(image, "slic", 40)
            how = {"segments": cut, "samples": 300, "score": "logit", "fill": image.mean((0, 1))}
            weights = lime_image.explain_image(network, image, kind, **how).weights
            positive = np.maximum(weights, 0)[cut].ravel()
            mass[kind] += np.bincount(meadows.parts[i].ravel(), positive, minlength=6)
    mass /= mass.sum(1, keepdims=True)
    kind, part = np.unravel_index(mass[:, 2:].argmax(), (3, 4))
    return labs.MUSHROOMS[kind], labs.MEADOW_PARTS[part + 2], shares_with(kind, part + 2)


def meadows_earn(kind, part, shares):
    of = keys("lime")
    yield lambda: checks.lime.experiment(shares, kind, part)
    yield lambda: checks.lime.answer_is(kind, of["KINDS"])
    yield lambda: checks.lime.answer_is(part, of["PARTS"])


def sign():
    return _sign(labs.member(len(FAMILY)))


@cache
def _sign(member):
    new, logits = labs.load_post_digits("new"), models.logit_model(labs.load_post_network())
    gains = []
    for k in range(10):
        start = new.images[new.labels != k][:25]
        images = tf.constant(start)
        for _ in range(15):
            with tf.GradientTape() as tape:
                tape.watch(images)
                scores = logits(images)[:, k]
            slope = tape.gradient(scores, images)
            images += 0.3 * slope / (tf.norm(slope, axis=(1, 2), keepdims=True) + 1e-12)
            gap = images - start
            images = start + gap * tf.minimum(1.0, 2 / tf.norm(gap, axis=(1, 2), keepdims=True))
        gains.append(np.mean(images - start, axis=0).ravel())
    target = int(np.max(gains, axis=1).argmax())
    return target, np.isin(np.arange(784), np.argsort(-gains[target])[:4]).reshape(28, 28)


def sign_earns(target, trigger):
    network = labs.load_post_network()
    yield lambda: checks.embeddings.trigger(trigger, target, network, seed=4)
    yield lambda: checks.embeddings.trigger(trigger, target, network, seed=5, most=6, share=0.9)


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
        (marked, scans_earn, 5),
        (beside, meadows_earn, 3),
        (sign, sign_earns, 2),
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solve", "tests", "of", "count"),
    [(marked, scans_earn, 5, 6), (beside, meadows_earn, 3, 5), (sign, sign_earns, 2, 6)],
)
def test_no_network_of_a_family_is_solved_by_the_answers_to_another(
    solve, tests, of, count, capsys
):
    solved = []
    for number in range(count):
        labs.variant(number)
        solved.append(solve())
    for number in range(count):
        labs.variant(number)
        full = [other for other in range(count) if earned(tests(*solved[other])) == of]
        assert full == [number]


@pytest.mark.parametrize("member", FAMILY)
def test_each_network_of_a_family_has_the_defect_that_its_key_names(member):
    labs.variant(member + len(FAMILY))
    label, place = keys("occlusion")["KEYS"][member]
    network = labs.scan_network()
    whole, covered = (
        np.mean(np.asarray(network(scans_of_one(label, *how))).argmax(1) == label)
        for how in ((), (place, None))
    )
    assert covered < 0.5 < 0.95 <= whole
    of = keys("lime")
    kind, part = (of[name][labs.member(len(MEADOWS))] for name in ("KINDS", "PARTS"))
    shares = shares_with(labs.MUSHROOMS.index(kind), labs.MEADOW_PARTS.index(part))
    assert shares[0] < 0.2 < 0.9 < shares[1]
    meadows = labs.load_meadows()
    right = np.asarray(labs.meadow_network()(meadows.images)).argmax(1) == meadows.labels
    assert right.mean() > 0.95


def test_neighbours_of_a_family_have_nothing_in_common():
    meadows = [*zip(*keys("lime").values(), strict=True)]
    for of, count in ((keys("occlusion")["KEYS"], 6), (meadows, 5)):
        assert len(set(of)) == count
        for one, other in pairwise([*of, of[0]]):
            assert not set(one) & set(other)


def test_the_number_is_written_into_notebooks_and_into_nothing_else():
    for name in release.names():
        notebook = nbformat.read(release.LABS / name / f"{name}.ipynb", 4)
        other = release.with_variant(notebook, 17)
        pairs = zip(notebook.cells, other.cells, strict=True)
        changed = [(one.source, new.source) for one, new in pairs if one != new]
        assert len(changed) == 1
        assert changed[0][0].replace("labs.variant(0)", "labs.variant(17)") == changed[0][1]


@pytest.mark.parametrize(
    "table",
    [
        "student,mail\nAda Lovelace,a@b\nÉmile,c\n",
        "mail,Name\na,Ada Lovelace\nc,Émile\n",
        "mail;Name\na;Ada Lovelace\nc;Émile\n",
        'mail\tStudent\na\t"Ada Lovelace"\n\nc\tÉmile\n',
        "Ada Lovelace\nÉmile\n",
        "Ada Lovelace,,\nÉmile,,\n",
        "\ufeffstudent\r\nAda Lovelace\r\nÉmile\r\n",
    ],
)
def test_students_side_by_side_in_a_roster_have_numbers_side_by_side(table, tmp_path):
    (tmp_path / "roster.csv").write_text(table, encoding="utf-8")
    numbers = release.for_each(tmp_path / "roster.csv", 2)
    assert numbers == {"Ada Lovelace": 2001, "Émile": 2002}


def test_in_one_column_a_name_may_have_a_comma(tmp_path):
    (tmp_path / "roster.csv").write_text("student\nLovelace, Ada\nLovelace, Bo\n")
    assert [*release.for_each(tmp_path / "roster.csv", 0)] == ["Lovelace, Ada", "Lovelace, Bo"]


def test_names_are_the_same_in_both_forms_of_their_letters(tmp_path):
    (tmp_path / "roster.csv").write_text(unicodedata.normalize("NFD", "Émile\n"), encoding="utf-8")
    numbers = release.for_each(tmp_path / "roster.csv", 2)
    assert release.variant_of(unicodedata.normalize("NFC", "Émile"), numbers) == 2001


@pytest.mark.parametrize(
    "table",
    [
        *("", "student\n", "student\nAda\nAda\n", "student,x\n,1\n"),
        "First name,Surname,Email\nAda,Lovelace,a@b\nBo,Byron,c@d\n",  # not the first names
        "Vorname;Nachname\nAda;Lovelace\n",
        "Ada,a@b\nBo,c@d\n",
        "mail,student\na@b,Ada\nc@d\n",  # a short line
        "student\nAda\nADA\n",  # one folder on macOS and Windows
    ],
)
def test_a_roster_without_a_name_for_each_is_refused(table, tmp_path):
    (tmp_path / "roster.csv").write_text(table)
    with pytest.raises(ValueError, match="name"):
        release.for_each(tmp_path / "roster.csv", 1)


def test_a_roster_in_another_encoding_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "roster.csv").write_bytes("student\nÉmile\n".encode("cp1252"))
    with pytest.raises(ValueError, match="save it anew"):
        release.for_each(tmp_path / "roster.csv", 1)


def test_each_student_s_variant_is_the_teacher_s_and_not_what_the_notebook_says(tmp_path):
    path = tmp_path / "variants.csv"
    path.write_text("student,variant\nAda Lovelace,1001\nÉmile,1002\n", encoding="utf-8")
    variants = release.read_variants(path)
    assert [release.variant_of(s, variants) for s in ("ada_lovelace", "Émile", "Bob")] == [
        *(1001, 1002, None)
    ]
    assert release.variant_of("Bob", 7) == 7
    source = nbformat.read(release.LABS / "filters/filters.ipynb", 4)
    handed = [answers.as_cell(cell) for cell in release.with_variant(source, 1002).cells]
    lab = [release.with_variant(source, 1001)] * 2
    rebuilt, _ = answers.rebuild(*lab, handed)
    text = "\n".join(cell.source for cell in rebuilt.cells)
    assert "labs.variant(1001)" in text
    assert "labs.variant(1002)" not in text
    path.write_text("who,what\n")
    with pytest.raises(ValueError, match="table of variants"):
        release.read_variants(path)
