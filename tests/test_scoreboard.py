"""The scoreboard: nothing is computed twice, intervals are over networks, and the file is whole."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from course_utils import datasets

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def board():
    sys.path.insert(0, str(ROOT / "data/build"))
    try:
        yield importlib.import_module("scoreboard")
    finally:
        sys.path.remove(str(ROOT / "data/build"))


def test_what_is_finished_is_not_computed_again(board, tmp_path, monkeypatch, capsys):
    asked = []

    def mark(who, name, counts, folder):
        asked.append((who, name))
        if len(asked) == 7:
            raise KeyboardInterrupt
        return {"mass": np.array([0.5, np.nan, len(name)])}

    fields = ["one 0", "one 1"]
    monkeypatch.setattr(board, "FIELDS", dict.fromkeys(fields, mark))
    counts = board.counts_of(50)
    with pytest.raises(KeyboardInterrupt):
        board.work(counts, fields, tmp_path)
    found = board.work(counts, fields, tmp_path)
    assert "6 of" in capsys.readouterr().out
    assert len(asked) == len(found) + 1 == len(set(asked)) + 1
    assert found["one 1", "saliency"]["marks"] == {"mass": [0.5, None, 8.0]}
    assert board.work(counts, fields, tmp_path) == found
    assert len(asked) == len(found) + 1


def test_what_was_finished_with_other_networks_or_data_is_not_taken_up(board, monkeypatch):
    counts, sums = board.counts_of(50), board.read_sums()
    own = board.digest_of(counts)
    assert own == board.digest_of(counts) != board.digest_of(board.counts_of(51))
    for name in sums:
        monkeypatch.setattr(board, "read_sums", lambda name=name: sums | {name: "0" * 64})
        assert (board.digest_of(counts) != own) == (name in board.FILES), name
    assert set(board.FILES) <= set(sums)


def test_the_files_that_the_marks_depend_on_are_those_that_are_read(board, monkeypatch):
    asked, own = set(), datasets.data_file
    monkeypatch.setattr(datasets, "data_file", lambda name: asked.add(name) or own(name))
    board.detector.cache_clear()
    for cached in (sys.modules["_contestants"].weights, board.linear, board.rectangles):
        cached.cache_clear()
    for recipe in board.RECIPES:
        board.detector(f"{recipe} 0", 2)
    board.linear(0)
    board.rectangles(2)
    assert asked == set(board.FILES)


def test_an_interval_is_over_networks_and_what_is_undefined_does_not_count(board):
    marks = {"fair 0": [0.1, 0.3], "fair 1": [0.4, None], "fair 2": [0.6], "confounded 0": [1.0]}
    units = {(who, "a"): {"marks": {"mass": values}} for who, values in marks.items()}
    units["fair 3", "a"] = {"marks": {"mass": [None]}}
    units["fair 0", "b"] = {"marks": {"mass": [0.0]}}
    mean, low, high, count = board.cell(units, "a", "mass", "fair")
    theirs = stats.ttest_1samp([0.2, 0.4, 0.6], 0).confidence_interval(0.95)
    assert count == 3
    np.testing.assert_allclose([mean, low, high], [0.4, theirs.low, theirs.high], rtol=1e-4)
    assert board.cell(units, "a", "mass", "")[3] == 4
    assert board.cell(units, "b", "mass", "fair") == [0.0, None, None, 1]
    assert board.cell(units, "b", "hit", "") is None


def test_the_shipped_table_has_every_method_and_the_truth_is_right(board):
    table = json.loads((ROOT / "data/scoreboard.json").read_text(encoding="utf8"))
    rows = {row["name"]: row for row in table["rows"]}
    assert [*rows] == [*board.contestants(0.0), board.TRUTH]
    assert len(table["networks"]) == table["made"]["networks"]
    for name, row in rows.items():
        for key, (mean, low, high, count) in (
            (k, v) for k, v in row.items() if k in table["columns"]
        ):
            assert 1 <= count <= max(len(table["networks"]), len(board.SEEDS)), (name, key)
            assert low is None or low <= mean <= high, (name, key)
    masses = [key for key in table["columns"] if key.startswith("mass ") and "rect" not in key]
    assert masses
    for key in masses:
        assert rows[board.TRUTH][key][0] == 1
        assert rows["constant"][key][0] == pytest.approx(
            np.mean([n["area"] for n in table["networks"] if n["name"][:-2] == key[5:]]), abs=1e-3
        )
    assert rows["edges"]["forgotten"][0] == 1
    assert rows["integrated gradients"]["exact"][0] == pytest.approx(1, abs=1e-3)


def test_a_mean_over_stages_leaves_out_what_is_undefined(board):
    found = board.averaged([[0.5, np.nan, np.nan], [0.1, 0.4, np.nan]])
    np.testing.assert_allclose(found, [0.3, 0.4, np.nan])
