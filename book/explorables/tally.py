"""Turns a class's lines of the blind test into how often it was right, with maps and without.

`make tally LINES=file` prints it. The file is text with the lines anywhere in it, as a chat or
e-mails have them; names and whatever else stands beside them are passed over.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

LINE = re.compile(
    r"blind test (\d+), time (\d+): with maps (\d+) of (\d+), without (\d+) of (\d+), "
    r"odd map (found|not found|not asked)"
)


class Tally(NamedTuple):
    """What a class's lines come to. A rate is (rate, low, high) with a 95 % interval."""

    students: int
    with_maps: tuple
    without: tuple
    difference: tuple
    """With maps less without."""
    better: int
    """Students who were more often right with maps than without."""
    worse: int
    p: float
    """How likely so uneven a split of these two is if maps make no difference (sign test)."""
    odd: tuple
    """Who found the map that never saw its network, of those who were asked."""


def read(text):
    """Return the first tests in a text, an int array (N, 4), and who found the odd map (M,).

    A row is right with maps, of how many, right without, of how many. A line that was handed in
    twice, or again after the last question, counts once; whoever takes the test again knows the
    networks, so that only times 1 count.

    Raises ValueError if there is no line of a first test, or one that cannot be.
    """
    text = re.sub(r"\s+(?:>\s*)*", " ", text)  # as programs for mail wrap and quote
    lines = {line[:6]: line for line in LINE.findall(text)}.values()
    first = [line for line in lines if int(line[1]) == 1]
    if not first:
        raise ValueError(
            "there is no line of a first blind test in this text. A line reads: blind test 12345, "
            "time 1: with maps 5 of 6, without 3 of 6, odd map found"
        )
    counts = np.array([line[2:6] for line in first], int)
    wrong = (counts[:, [0, 2]] > counts[:, [1, 3]]) | (counts[:, [1, 3]] == 0)
    if wrong.any():
        number = first[int(wrong.any(axis=1).argmax())][0]
        raise ValueError(
            f"the line of blind test {number} has more right than asked, or none asked."
        )
    odd = np.array([line[6] == "found" for line in first if line[6] != "not asked"], int)
    return counts, odd


def tally(counts, odd):
    """Return the Tally of what `read` has found."""
    right, asked = counts[:, [0, 2]].T, counts[:, [1, 3]].T
    with_maps, without = (rate(r, n) for r, n in zip(right, asked, strict=True))
    shares = right / asked
    better, worse = int(np.sum(shares[0] > shares[1])), int(np.sum(shares[0] < shares[1]))
    p = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    found = rate(odd, np.ones_like(odd)) if len(odd) else (np.nan, np.nan, np.nan)
    apart = difference(with_maps, without)
    return Tally(len(counts), with_maps, without, apart, better, worse, float(p), found)


def rate(right, asked):
    """Return the rate of right answers and its 95 % interval, from each student's counts.

    Wilson's interval, which has a width where all answers are right or none is. Answers of one
    student resemble each other; where students differ more than chance makes them, the interval
    is that of as many answers as there were in effect (Kish's design effect).
    """
    right, asked = np.asarray(right, float), np.asarray(asked, float)
    total, mean = asked.sum(), right.sum() / asked.sum()
    effective = total
    if len(right) > 1 and 0 < mean < 1:
        spread = np.sum((right - mean * asked) ** 2) * len(right) / (len(right) - 1)
        effective = total / max(1.0, spread / (total * mean * (1 - mean)))
    z2 = stats.norm.ppf(0.975) ** 2
    middle = (mean + z2 / 2 / effective) / (1 + z2 / effective)
    half = np.sqrt(z2 * (mean * (1 - mean) + z2 / 4 / effective) / effective) / (1 + z2 / effective)
    return float(mean), float(max(middle - half, 0)), float(min(middle + half, 1))


def difference(one, other):
    """Return how far two rates are apart, with Newcombe's interval from those of the two.

    Newcombe, Interval estimation for the difference between independent proportions (1998),
    method 10. That the same students gave both makes it a little too wide.
    """
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    low = a - b - np.hypot(a - a_low, b_high - b)
    high = a - b + np.hypot(a_high - a, b - b_low)
    return a - b, float(low), float(high)


def report(found):
    """Return a Tally in words."""

    def words(numbers, sign=""):
        return "{:{s}.0%} [{:{s}.0%}, {:{s}.0%}]".format(*numbers, s=sign)

    lines = [
        f"{found.students} students, rates with 95 % intervals",
        f"with maps     {words(found.with_maps)}",
        f"without       {words(found.without)}   chance: 50%",
        f"difference    {words(found.difference, '+')}",
        f"better with maps {found.better}, worse {found.worse}: p = {found.p:.2g} (sign test)",
    ]
    if not np.isnan(found.odd[0]):
        lines.append(f"the odd map   {words(found.odd)}   chance: 25%")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Name a file with the class's lines: make tally LINES=file")
    try:
        print(report(tally(*read(Path(sys.argv[1]).read_text(encoding="utf-8")))))
    except (OSError, ValueError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
