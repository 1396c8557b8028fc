"""Scores of an explanation against a known truth: 1 is right, chance is the mask's share."""

import numpy as np


def pointing_game(heatmaps, masks):
    """Return whether the largest value of each heat map lies on the object, float64 (N,).

    1 if it does, 0 if not; where several pixels share the largest value, the share of them that
    lie on the object, so that a constant map scores the object's share of the area.

    Parameters
    ----------
    heatmaps : array (N, H, W)
    masks : bool array (N, H, W)
        True on the object.

    Raises
    ------
    ValueError
        If the shapes differ, a mask is empty, or a heat map holds NaN or infinity.

    References
    ----------
    Zhang et al., Top-down Neural Attention by Excitation Backprop (2016).
    """
    heatmaps, masks = _check(heatmaps, masks)
    largest = heatmaps == heatmaps.max(axis=(1, 2), keepdims=True)
    return (largest & masks).sum(axis=(1, 2)) / largest.sum(axis=(1, 2))


def mass_inside(heatmaps, masks):
    """Return the share of each heat map's positive values that lies on the object, float64 (N,).

    Negative values count as none. A map without positive values scores 0, but a constant one,
    which prefers no place, scores the object's share of the area.

    Parameters and errors are those of `pointing_game`.
    """
    heatmaps, masks = _check(heatmaps, masks)
    positive = np.maximum(heatmaps, 0)
    constant = np.ptp(heatmaps, axis=(1, 2)) == 0
    positive[constant] = 1
    total = positive.sum(axis=(1, 2))
    inside = (positive * masks).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


def _check(heatmaps, masks):
    heatmaps, masks = np.asarray(heatmaps, np.float64), np.asarray(masks)
    if heatmaps.ndim != 3 or heatmaps.shape != masks.shape:
        raise ValueError(
            "heatmaps and masks must have the same shape (N, height, width), "
            f"got {heatmaps.shape} and {masks.shape}."
        )
    if masks.dtype != bool:
        raise ValueError(f"masks must be bool, True on the object, got {masks.dtype}.")
    if not np.isfinite(heatmaps).all():
        raise ValueError("heatmaps must be finite, but they hold NaN or infinity.")
    empty = np.flatnonzero(~masks.any(axis=(1, 2)))
    if len(empty):
        raise ValueError(
            f"mask {empty[0]} is empty ({len(empty)} of {len(masks)} are): there is no object to "
            "find. Leave such images out."
        )
    return heatmaps, masks
