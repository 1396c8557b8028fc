"""How maps draw groups of points, on paper and on the page: a colour and a marker for each."""

import numpy as np

# Okabe and Ito's, which readers with colour-blindness can tell apart, without the yellow that is
# faint on white. Seven colours and ten markers have no common factor: 70 groups differ in one of
# them, and those that follow each other in both.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "d")
MOST = 70


def group_styles(groups):
    """Return a (colour, marker) of matplotlib for each group, no two the same."""
    if len(groups) > MOST:
        raise ValueError(f"{len(groups)} groups are too many to tell apart: {MOST} at most.")
    return [(COLOURS[i % 7], MARKERS[i % 10]) for i in range(len(groups))]


def group_name(group, names):
    """Return what a legend says of a group: its name, if there are names."""
    if names is None:
        return str(group)
    if not 0 <= group < len(names):
        raise ValueError(f"there are {len(names)} names, and none for label {group}.")
    return str(names[group])


def check_map(points, labels):
    """Return points (N, 2) and labels (N,) as arrays, or say what is wrong with them."""
    points, labels = np.asarray(points, np.float64), np.asarray(labels)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
        raise ValueError(
            "points must have shape (N, 2), and labels (N,) with one for each, "
            f"got {points.shape} and {labels.shape}."
        )
    if len(points) == 0:
        raise ValueError("there are no points to draw.")
    if not np.isfinite(points).all():
        raise ValueError("points must be finite, but they hold NaN or infinity.")
    return points, labels
