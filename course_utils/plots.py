"""Pictures of filters, feature maps, networks and scores, with the colour maps that suit them.

Magnitudes get a perceptually uniform colour map, signed values one that is centred on zero,
and both a colour bar, so that no picture claims more than its numbers.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Polygon

from course_utils._groups import check_map, group_name, group_styles
from course_utils._shared import channels_first, layer_calls, maps_first
from course_utils.inspection import layer_table

MAGNITUDE = "magma"
SIGNED = "RdBu_r"


def show_grid(images, titles=None, *, columns=8, cmap="gray", signed=False, label=None, title=None):
    """Draw images side by side on one common scale, and return the Figure.

    Parameters
    ----------
    images : array (N, H, W), (N, H, W, 1) or (N, H, W, 3)
        Grey or coloured images; coloured ones in 0..1 or uint8.
    titles : sequence of N, optional
        What stands above each image.
    columns : int
        Images in a row.
    cmap : str
        Colour map of grey images.
    signed : bool
        Use a colour map centred on zero instead of `cmap`.
    label : str, optional
        What the values are; where it is given, the figure has a colour bar with this label.
    title : str, optional
        What stands above the whole figure.

    Raises
    ------
    ValueError
        If there is nothing to draw, or as many titles as images are not given.
    """
    images = _as_pictures(images)
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"got {len(titles)} titles for {len(images)} images.")
    scale = _signed_scale(images) if signed else _plain_scale(images, cmap)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell = 9.6 / max(columns, 5)
    title_height = 0.24 if titles is not None else 0.04
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(
            cell * columns + 0.8 * bool(label),
            (cell + title_height) * rows + 0.5 * bool(title),
        ),
        squeeze=False,
        layout="constrained",
        # No ticks: though they are not drawn, the layout would measure them all the same.
        subplot_kw={"xticks": [], "yticks": []},
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for i, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        drawn = axis.imshow(image, **scale)
        if titles is not None:
            axis.set_title(str(titles[i]), fontsize=9, pad=3)
    if label:
        # Of the corners alone: the layout measures the bar anew for each image that has it.
        corners = axes[:: max(1, rows - 1), :: max(1, columns - 1)]
        figure.colorbar(drawn, ax=corners, label=label, fraction=0.03, pad=0.02, aspect=30)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def show_filters(kernels, *, channel=0, columns=8, title=None):
    """Draw one input channel of every filter on a scale centred on zero, and return the Figure.

    Parameters
    ----------
    kernels : array (height, width, channels in, filters)
        As `inspection.filters` gives them: red weights are positive, blue negative, white zero.
    channel : int
        The input channel to draw.

    Raises
    ------
    ValueError
        If `kernels` does not have four axes, or has no such channel.
    """
    kernels = np.asarray(kernels)
    if kernels.ndim != 4:
        raise ValueError(
            "kernels must have shape (height, width, channels in, filters), "
            f"got {kernels.shape}. inspection.filters(model, layer) returns them so."
        )
    if not 0 <= channel < kernels.shape[2]:
        raise ValueError(f"channel {channel} does not exist: there are {kernels.shape[2]}.")
    return show_grid(
        np.moveaxis(kernels[:, :, channel], -1, 0),
        titles=range(kernels.shape[3]),
        columns=columns,
        signed=True,
        label="weight",
        title=title,
    )


def show_architecture(model, ax=None):
    """Draw a chain of layers as blocks, and return the Axes.

    A block with rows and columns is a slab: its height is the height of the feature maps and
    its thickness grows with the logarithm of their number. A vector is a bar. Above each block
    stands its shape as the layer has it, so that channels may come first; below it what the layer
    is and how many parameters it has. Needs no program besides matplotlib.

    Raises ValueError if the model is not built, does not take images, or has more than 24
    layers, which no drawing of this kind shows well.
    """
    rows = layer_table(model)
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or None in shape[1:]:
        raise ValueError(f"the model must take images of a fixed size, it takes {shape}.")
    if len(rows) > 24:
        raise ValueError(
            f"{len(rows)} layers are too many to draw as blocks. "
            "Use inspection.layer_table(model), or keras.utils.plot_model with Graphviz."
        )
    blocks = [("input", tuple(shape[1:]), None)]
    blocks += [(row.kind, row.output_shape[1:], row.parameters) for row in rows]
    first = [
        channels_first(model),
        *(maps_first(model, layer) for layer, _, _ in layer_calls(model)),
    ]
    slabs = [_channels_behind(size, f) for (_, size, _), f in zip(blocks, first, strict=True)]
    if ax is None:
        _, ax = plt.subplots(figsize=(1.15 * len(blocks), 3.4), layout="constrained")
    for x, (kind, size, parameters) in enumerate(blocks):
        top = _draw_block(ax, x, kind, slabs[x], tallest=slabs[0][0])
        ax.text(x, top + 0.04, " × ".join(map(str, size)), ha="center", va="bottom", fontsize=9)
        count = f"\n{parameters:,}" if parameters else ""
        ax.text(x, -0.72, _SHORT.get(kind, kind) + count, ha="center", va="top", fontsize=8.5)
    ax.set_xlim(-0.6, len(blocks) - 0.4)
    ax.set_ylim(-1.05, 0.95)
    ax.set_axis_off()
    ax.set_title(f"{model.name}: {model.count_params():,} parameters", fontsize=11)
    return ax


# Okabe and Ito's colours, which readers with colour-blindness can tell apart.
_COLOURS = {"Conv": "#0072B2", "Pool": "#E69F00", "Dense": "#CC79A7", "input": "#FFFFFF"}
_SHORT = {"MaxPooling2D": "MaxPool2D", "GlobalAveragePooling2D": "GlobalAvg"}


def _channels_behind(size, first):
    """The size of a layer's output as (H, W, C), of a vector as it is."""
    return (*size[1:], size[0]) if first and len(size) == 3 else size


def _draw_block(ax, x, kind, size, tallest):
    """Draw one layer's output around (x, 0) and return its highest y."""
    colour = next((c for part, c in _COLOURS.items() if part in kind), "#BBBBBB")
    if len(size) == 3:
        height = 1.1 * np.sqrt(size[0] / tallest)
        thick, lean = 0.06 + 0.045 * np.log2(size[2]), 0.28 * height
    else:
        height, thick, lean = 0.35 + 0.07 * np.log2(np.prod(size)), 0.1, 0.0
    left, bottom = x - (thick + lean) / 2, -height / 2 - lean / 4
    front = np.array([[0, 0], [thick, 0], [thick, height], [0, height]]) + [left, bottom]
    back = front + [lean, lean / 2]
    faces = [(front, 1.0)]
    if lean:
        faces += [
            (np.array([front[3], front[2], back[2], back[3]]), 0.55),
            (np.array([front[1], back[1], back[2], front[2]]), 0.75),
        ]
    for corners, shade in faces:
        ax.add_patch(Polygon(corners, facecolor=colour, alpha=shade, edgecolor="#222222", lw=0.8))
    return bottom + height + lean / 2


def _as_pictures(images):
    """(N, H, W) or (N, H, W, 3), or a clear error."""
    images = np.asarray(images)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3):
        raise ValueError(
            f"images must have shape (N, H, W), (N, H, W, 1 or 3), got {images.shape}."
        )
    if images.size == 0:
        raise ValueError("there are no images to draw.")
    return images


def _plain_scale(images, cmap):
    if images.ndim == 4:
        return {}
    return {"cmap": cmap, "vmin": images.min(), "vmax": images.max()}


def _signed_scale(values):
    largest = np.abs(values).max() or 1.0
    return {"cmap": SIGNED, "vmin": -largest, "vmax": largest}


def show_heatmap(image, heatmap, *, ax=None, label="importance", title=None, alpha=0.65):
    """Lay a heat map of magnitudes over its image, with a colour bar, and return the Axes.

    Parameters
    ----------
    image : array (H, W), (H, W, 1) or (H, W, 3)
        Drawn in grey below the heat map; any scale. None draws the heat map alone.
    heatmap : array (H, W)
        Dark is the smallest value, bright the largest.
    label : str
        What the values are, beside the colour bar.
    alpha : float
        How much of the heat map covers the image, 0 to 1.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    heatmap = _as_heatmap(heatmap)
    ax = _axes(ax)
    if image is not None:
        ax.imshow(_as_backdrop(image, heatmap.shape), cmap="gray")
    drawn = ax.imshow(heatmap, cmap=MAGNITUDE, alpha=1.0 if image is None else alpha)
    return _finish(ax, drawn, label, title)


def show_signed(image, heatmap, *, ax=None, label="importance", title=None, alpha=0.75):
    """Lay a signed heat map over its image, centred on zero, and return the Axes.

    Red speaks for the target, blue against it. Parameters and errors are those of
    `show_heatmap`.
    """
    heatmap = _as_heatmap(heatmap)
    ax = _axes(ax)
    if image is not None:
        ax.imshow(_as_backdrop(image, heatmap.shape), cmap="gray")
    scale = _signed_scale(heatmap)
    drawn = ax.imshow(heatmap, **scale, alpha=1.0 if image is None else alpha)
    return _finish(ax, drawn, label, title)


def _axes(ax):
    return plt.subplots(figsize=(4.6, 3.8), layout="constrained")[1] if ax is None else ax


def _finish(ax, drawn, label, title):
    """Add a colour bar and a title to a heat map, and take its ticks away."""
    bar = ax.figure.colorbar(drawn, ax=ax, label=label, fraction=0.046, pad=0.03)
    bar.solids.set_alpha(1)
    ax.set_axis_off()
    ax.set(xticks=[], yticks=[])  # though they are not drawn, the layout would measure them
    if title:
        ax.set_title(title, fontsize=10)
    return ax


def _as_heatmap(heatmap):
    heatmap = np.asarray(heatmap)
    if heatmap.ndim != 2:
        raise ValueError(
            f"heatmap must have shape (height, width), got {heatmap.shape}. Explanations return "
            "one for each image: pick one with heatmaps[0]."
        )
    return heatmap


def _as_backdrop(image, shape):
    """The image in shades of grey, (H, W), so that its colours do not mix with the heat map's."""
    image = np.asarray(image, np.float32)
    if image.shape[:2] != shape or image.ndim not in (2, 3):
        raise ValueError(f"image {image.shape} and heatmap {shape} must have the same size.")
    return image if image.ndim == 2 else image.mean(axis=-1)


def show_embedding(points, labels, *, names=None, ax=None, title=None, legend=True):
    """Draw a map of points with a colour and a marker for each label, and return the Axes.

    Distances in the plane are drawn to scale. There are no ticks, because the coordinates of a
    projection mean nothing by themselves.

    Parameters
    ----------
    points : array (N, 2)
        As `embedding.project` gives them.
    labels : array (N,)
        Which group each point belongs to; groups are styled in sorted order, so that the same
        labels look the same in every map.
    names : sequence of str, optional
        What the legend says of labels 0, 1, 2 ...; the labels themselves if not given.
    legend : bool
        Whether to put a legend to the right of the map.

    Raises
    ------
    ValueError
        If the shapes do not fit, a point is not finite, there is a label without a name, or more
        than 70 labels.
    """
    points, labels = check_map(points, labels)
    groups = np.unique(labels)
    ax = _axes(ax)
    for group, (colour, marker) in zip(groups, group_styles(groups), strict=True):
        some = points[labels == group]
        style = {"color": colour, "marker": marker, "edgecolors": "#222222", "linewidths": 0.4}
        ax.scatter(some[:, 0], some[:, 1], s=26, label=group_name(group, names), **style)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_xticks([])
    ax.set_yticks([])
    if title:
        ax.set_title(title, fontsize=10)
    if legend:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5)
    return ax


def show_dots(rows, *, ax=None, interval=None, level=None, title=None, shift=0.0, **style):
    """Draw a row of dots for each name with their mean marked, and return the Axes.

    Tables whose numbers vary with a seed, a network or an image are read more easily so. For
    several quantities give it the Axes of `plt.subplots(1, n, sharey=True)` one by one; for
    several series in one Axes, call it once for each with its own `shift`, `color` and `label`.

    Parameters
    ----------
    rows : dict of str to array (N,)
        The values of each row, say one for each seed; first rows stand at the top. All are drawn,
        as small rings, and their mean as a filled dot; a single value is a dot alone.
    interval : function, optional
        Gives the lower and the upper bound of a row's values. A line between the two, say a
        confidence interval, then takes the place of the rings.
    level : float, optional
        Where a dashed line stands, such as the score of chance.
    shift : float
        How far below the middle of its row a series stands, in rows.
    **style
        Of the dots, as `Axes.plot` takes it: `color`, `marker`, `label`.

    Raises
    ------
    ValueError
        If there is nothing to draw.
    """
    if not rows:
        raise ValueError("there are no rows to draw.")
    ax = _axes(ax)
    style = {"color": "#0072B2", "marker": "o"} | style
    colour, marker, label = style["color"], style["marker"], style.pop("label", None)
    for at, values in enumerate(rows.values()):
        values, height = np.atleast_1d(values).astype(float), at + shift
        if interval is not None:
            ax.hlines(height, *interval(values), color=colour, lw=2)
        elif len(values) > 1:
            heights = np.full(len(values), height)
            ax.plot(values, heights, marker, mec=colour, mfc="none", ms=4, alpha=0.7)
        ax.plot(values.mean(), height, ls="", ms=6.5, label=None if at else label, **style)
    if level is not None:
        ax.axvline(level, color="grey", ls="--", lw=1, zorder=0)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", color="0.9")
    ax.set_axisbelow(True)
    if title:
        ax.set_title(title, fontsize=10)
    return ax
