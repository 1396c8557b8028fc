"""Every method of the course on one photo, side by side in one figure."""

import difflib
import io
import os
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from course_utils import cam, gradients, lime_image, occlusion, plots
from course_utils._scores import predict, score_model
from course_utils.datasets import load_photo
from course_utils.models import imagenet_classifier


class PhotoExplanation(NamedTuple):
    """What `explain_photo` found."""

    figure: plt.Figure
    """The photo and all maps."""
    heatmaps: dict
    """From each method's name to its map, float32 (H, W), on the method's own scale."""
    top: list
    """The five likeliest classes, each an (index, name, probability)."""
    target: int
    """The class that was explained."""
    probability: float
    """What the network gives it."""


# Occlusion and LIME hide with middle grey: to this network 0, to others about their mean colour.
METHODS = {
    "saliency": gradients.saliency_map,
    "SmoothGrad": lambda *args: gradients.smoothgrad(*args, samples=25),
    "Grad-CAM": cam.grad_cam,
    "gradient × input": gradients.gradient_times_input,
    "integrated gradients": gradients.integrated_gradients,
    "occlusion": lambda *args: occlusion.occlusion_map(
        *args, patch=56, stride=28, score="logit", batch_size=16
    ),
    "LIME": lambda *args: lime_image.lime_map(
        *args, samples=250, score="logit", fill=0.0, batch_size=16
    ),
}
"""The methods, by the name they have in the figure; each is called with model, images, target."""
UNSIGNED = ("saliency", "SmoothGrad", "Grad-CAM")


def explain_photo(photo, target=None, *, classifier=None, save=None):
    """Explain one answer of an ImageNet network by seven methods of the course, in one figure.

    Parameters
    ----------
    photo : str, path, bytes or array (height, width, 3) or (1, height, width, 3)
        As `datasets.load_photo` takes it (a shipped photo's name, or an image file or its bytes),
        or the pixels, red, green, blue in 0..255.
    target : int or str, optional
        The class to explain: its index, or its name as the classifier has it; the likeliest class
        if not given.
    classifier : ImageClassifier, optional
        The network; the one that the course ships if not given.
    save : str or path, optional
        Where to write the figure, as a PNG.

    Returns
    -------
    PhotoExplanation
        In the figure each map is divided by the 99th percentile of its absolute values, beyond
        which colours are at their end, so colours can be compared within a map but not between
        maps: the title of each says what 1 stands for.

    Raises
    ------
    ValueError
        If the photo cannot be read, there is no such class, or nothing can be written to `save`
        (a folder that does not exist, a name that does not end in .png); before the computing.
    """
    if save is not None:
        save = _check_save(save)
    pixels = _one(photo) if isinstance(photo, np.ndarray) else load_photo(photo, None)
    classifier = classifier or imagenet_classifier()
    if target is not None:
        target = _find_class(target, classifier.class_names)
    images = classifier.preprocess(pixels)
    answer = predict(score_model(classifier.model, "probability"), images, 1)
    top = classifier.decode(answer, 5)[0]
    target = top[0][0] if target is None else target
    heatmaps = {name: run(classifier.model, images, target)[0] for name, run in METHODS.items()}
    probability = float(answer[0, target])
    title = f"{classifier.class_names[target]} (class {target}), probability {probability:.3f}"
    figure = _draw(classifier.crop(pixels), heatmaps, title)
    if save is not None:
        _save(figure, save)
    return PhotoExplanation(figure, heatmaps, top, target, probability)


def _check_save(save):
    """Return the path to write the figure to, or say why it cannot be, before anything is computed.

    What may go wrong differs from system to system, so it is tried: an empty file is written
    beside, and taken away.
    """
    if not isinstance(save, (str, os.PathLike)) or Path(save).suffix.lower() != ".png":
        raise ValueError(f"save must be the path of a .png file, got {str(save)!r}.")
    path = Path(save).expanduser()
    if os.path.isdir(path):
        raise ValueError(f"the figure cannot be saved as {path}: that is a folder.")
    try:
        _beside(path).write_bytes(b"")
        _beside(path).unlink()
    except OSError as error:
        raise ValueError(
            f"the figure cannot be saved as {path}: {error.strerror}. Name a folder that exists "
            "and that you may write to."
        ) from None
    return path


def _beside(path):
    return path.with_name(f".{path.name}.part")


def _one(photo):
    """A photo from a batch of one."""
    if photo.ndim == 4 and len(photo) != 1:
        raise ValueError(f"explain_photo explains one photo, got {len(photo)}: pass one by one.")
    return photo[0] if photo.ndim == 4 else photo


def _find_class(target, class_names):
    """The index of a class, from its index or its name."""
    if isinstance(target, str):
        found = [i for i, name in enumerate(class_names) if name.lower() == target.lower()]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"classes {found} are all called {target!r}: choose one by its index.")
        close = difflib.get_close_matches(target, class_names, n=5, cutoff=0.5)
        close += [name for name in class_names if target.lower() in name.lower()][:5]
        hint = f" Close to it: {', '.join(dict.fromkeys(close))}." if close else ""
        raise ValueError(f"the network has no class {target!r}.{hint}")
    whole = isinstance(target, (int, np.integer)) and not isinstance(target, bool)
    if not whole or not 0 <= target < len(class_names):
        raise ValueError(
            f"target must be a class's name or index, 0 to {len(class_names) - 1}, got {target!r}."
        )
    return int(target)


def _draw(photo, heatmaps, title):
    """The photo and the unsigned maps above, the signed maps below, a colour bar for each row."""
    signed = [name for name in heatmaps if name not in UNSIGNED]
    rows = [["photo", *UNSIGNED], signed]
    figure, axes = plt.subplots(2, 4, figsize=(11.2, 6.2), layout="constrained")
    for names, row in zip(rows, axes, strict=True):
        for name, axis in zip(names, row, strict=True):
            axis.set_axis_off()
            if name == "photo":
                axis.imshow(photo)
                axis.set_title("what the network sees", fontsize=10)
                continue
            heatmap = heatmaps[name]
            one = np.percentile(np.abs(heatmap), 99) or 1.0
            backdrop = photo.mean(axis=-1)
            axis.imshow(backdrop, cmap="gray")
            scale = (
                {"cmap": plots.SIGNED, "vmin": -1, "vmax": 1, "alpha": 0.75}
                if name in signed
                else {"cmap": plots.MAGNITUDE, "vmin": 0, "vmax": 1, "alpha": 0.75}
            )
            drawn = axis.imshow(heatmap / one, **scale)
            axis.set_title(f"{name} (1 is {one:.2g})", fontsize=10)
        label = "against it       for it" if names is signed else "importance"
        bar = figure.colorbar(drawn, ax=row, label=label, fraction=0.03, pad=0.01)
        bar.solids.set_alpha(1)
    figure.suptitle(title, fontsize=12)
    return figure


def _save(figure, path):
    """Write the figure as a PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    beside = _beside(path)
    try:
        beside.write_bytes(content.getvalue())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
