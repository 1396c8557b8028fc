"""A class's lines of the blind test become rates, with intervals that hold at the edges too."""

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

SCRIPT = Path(__file__).resolve().parents[1] / "book/explorables/tally.py"
sys.path.insert(0, str(SCRIPT.parent))
tally = importlib.import_module("tally")

LINE = "blind test {}, time {}: with maps {} of 6, without {} of 6, odd map {}"


def test_lines_are_found_among_other_text_and_count_once():
    lines = [
        "Anna: " + LINE.format(11, 1, 6, 3, "found") + " :-)",
        LINE.format(12, 1, 5, 2, "not found"),
        LINE.format(12, 1, 5, 2, "not found"),  # handed in twice
        LINE.format(13, 2, 6, 6, "found"),  # somebody's second time
        "> " + LINE.format(14, 1, 4, 4, "not asked").replace("6, odd", "6,\nodd"),
        "blind test 15, time 1: with maps",
    ]
    counts, odd = tally.read("\n".join(lines))
    assert counts.tolist() == [[6, 6, 3, 6], [5, 6, 2, 6], [4, 6, 4, 6]]
    assert odd.tolist() == [1, 0]
    found = tally.tally(counts, odd)
    assert found.students == 3
    assert (found.with_maps[0], found.without[0]) == (15 / 18, 9 / 18)
    assert (found.better, found.worse, found.p) == (2, 0, 0.5)
    assert "with maps     83% [" in tally.report(found)
    assert "the odd map   50% [" in tally.report(found)


@pytest.mark.parametrize("ending", ["found", "not found", "not asked"])
@pytest.mark.parametrize("before", ["", "Anna: ", "> ", "> > Anna: "])
def test_a_line_counts_wherever_a_program_for_mail_has_wrapped_it(before, ending):
    line = LINE.format(11, 1, 6, 3, ending)
    for width in range(30, 100):
        quoted = before[: before.rfind(">") + 2] if ">" in before else ""
        text = textwrap.fill(before + line, width, subsequent_indent=quoted)
        counts, odd = tally.read(text)
        assert counts.tolist() == [[6, 6, 3, 6]], text
        assert odd.tolist() == {"found": [1], "not found": [0]}.get(ending, []), text


def test_who_hands_in_a_line_before_the_last_question_and_after_it_is_one_student():
    lines = [LINE.format(11, 1, 6, 3, ending) for ending in ("not asked", "found")]
    counts, odd = tally.read("\n".join(lines))
    assert (len(counts), odd.tolist()) == (1, [1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing here", "no line of a first"),
        (LINE.format(3, 2, 5, 5, "found"), "no line of a first"),
        (LINE.format(3, 1, 7, 5, "found"), "more right than asked"),
        (LINE.format(3, 1, 5, 0, "found").replace("0 of 6", "0 of 0"), "none asked"),
    ],
)
def test_a_text_without_lines_or_with_one_that_cannot_be_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        tally.read(text)


@pytest.mark.parametrize("right", [0, 1, 6])
def test_one_student_has_wilsons_interval(right):
    expected = stats.binomtest(right, 6).proportion_ci(method="wilson")
    np.testing.assert_allclose(tally.rate([right], [6])[1:], expected, atol=1e-12)


def test_a_class_that_is_always_right_has_an_interval_with_a_width():
    rate, low, high = tally.rate([6] * 20, [6] * 20)
    assert rate == high == 1
    np.testing.assert_allclose(low, 120 / (120 + stats.norm.ppf(0.975) ** 2))
    apart, low, high = tally.difference(tally.rate([6] * 20, [6] * 20), tally.rate([0], [6]))
    assert low < apart == 1 <= high


def test_the_difference_has_newcombes_interval():
    """The first example of his paper, 56 of 70 and 48 of 80, by method 10."""
    apart, low, high = tally.difference(tally.rate([56], [70]), tally.rate([48], [80]))
    np.testing.assert_allclose([apart, low, high], [0.2, 0.0524, 0.3339], atol=5e-5)


@pytest.mark.parametrize(
    ("mean", "spread"), [(0.5, None), (0.8, None), (0.97, None), (0.5, 2.0), (0.8, 2.0)]
)
def test_intervals_hold_the_rate_though_students_differ(mean, spread):
    """25 students, alike or with abilities from a beta distribution: 95 in 100 intervals hold."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        ability = mean if spread is None else rng.beta(spread * mean, spread * (1 - mean), 25)
        _, low, high = tally.rate(rng.binomial(6, ability, 25), np.full(25, 6))
        held.append(low <= mean <= high)
    assert np.mean(held) > 0.92


def test_the_command_prints_the_tally(tmp_path):
    lines = tmp_path / "class.txt"
    lines.write_text("\n".join(LINE.format(n, 1, 5, n % 4 + 1, "found") for n in range(8)))
    done = subprocess.run([sys.executable, SCRIPT, lines], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("8 students")
    lines.write_text("empty")
    done = subprocess.run([sys.executable, SCRIPT, lines], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no line" in done.stderr
