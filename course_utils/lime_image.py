"""LIME for images: hide superpixels at random, and fit a weighted linear model to the scores."""

from typing import NamedTuple

import numpy as np


class LimeExplanation(NamedTuple):
    """What LIME found: a linear model of the score in the superpixels that are shown."""

    segments: np.ndarray
    """int (H, W): the superpixel of each pixel."""
    weights: np.ndarray
    """float64 (number of superpixels,): what showing a superpixel adds to the score."""
    intercept: float
    """The linear model's score where everything is hidden."""
    r2: float
    """How much of the scores' weighted variance the linear model accounts for, at most 1."""


def superpixels(image, method="slic", n_segments=50):
    """Cut an image into superpixels: patches of neighbouring pixels of similar colour.

    Parameters
    ----------
    image : array (H, W, C)
        Colour or grey, on any scale: its values are stretched to 0..1 first.
    method : "slic", "kmeans", "quickshift" or "meanshift"
        SLIC (Achanta et al., 2012); k-means on colour and position, as document 002 describes;
        quickshift (Vedaldi and Soatto, 2008), the lime library's own; mean shift (Comaniciu and
        Meer, 2002).
    n_segments : int
        About how many. Quickshift and mean shift find their own number, near it.

    Returns
    -------
    int64 (H, W)
        Labels 0, 1, 2, ... without gaps. The same image gives the same labels.
    """
    raise NotImplementedError


def explain_image(
    model,
    image,
    target,
    *,
    segments,
    perturbations=None,
    samples=1000,
    fill="mean",
    kernel_width=0.25,
    ridge=0.0,
    score="probability",
    seed=0,
    batch_size=64,
    progress=False,
):
    """Explain one answer by LIME: what showing each superpixel adds to the score of the target.

    Parameters
    ----------
    model : keras.Model
    image : array (H, W, C)
    target : int
        The class to explain.
    segments : int array (H, W)
        The superpixel of each pixel, 0, 1, 2, ..., as `superpixels` returns them.
    perturbations : 0/1 array (samples, number of superpixels), optional
        Which superpixels each sample shows. If not given, the first sample shows all, and each
        other one shows each superpixel with probability one half.
    samples : int
        How many samples to draw, where `perturbations` is not given.
    fill : "mean", float, array (C,) or array (H, W, C)
        What hides a superpixel: its mean colour, as in the lime library; a value or colour; or
        another image.
    kernel_width : float
        A sample at cosine distance d from the whole image weighs
        sqrt(exp(-d**2 / kernel_width**2)).
    ridge : float
        Penalty on the squared weights; 0 is plain least squares, 1 what the lime library takes.
    score : "probability" or "logit"
    seed : int
        Of the random samples.
    batch_size : int
        Samples that are in memory at a time.
    progress : bool
        Show a progress bar.

    Returns
    -------
    LimeExplanation

    Raises ValueError if an argument does not fit.

    References
    ----------
    Ribeiro, Singh and Guestrin, "Why Should I Trust You?" (2016).
    """
    raise NotImplementedError


def lime_map(model, images, targets, *, n_segments=50, method="slic", **options):
    """Return LIME's weights painted on their superpixels, float32 (N, H, W), signed.

    Parameters
    ----------
    model : keras.Model
    images : array (N, H, W, C)
    targets : int or int array (N,)
    n_segments, method
        As in `superpixels`.
    **options
        As in `explain_image`.
    """
    raise NotImplementedError
