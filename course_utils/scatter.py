"""Maps inside a page that answer: choose what is drawn, and ask any point what it is.

They are plain HTML, CSS and SVG, as quizzes are, so they work on the static site, in JupyterLab
and on Colab, with a mouse, a finger, a keyboard or a screen reader, with no network and no
JavaScript.
"""

import base64
import hashlib
import io
from html import escape

import cv2
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.markers import MarkerStyle

from course_utils._groups import check_map, group_name, group_styles
from course_utils.plots import MAGNITUDE, SIGNED, show_embedding

# Which radio buttons are checked decides what is seen; each mark is one, too, and its label says
# what it is. A browser without :has shows the first map in the first colouring.
_STYLE = """
.scatter { background: #fff; border: 1px solid #8888; border-radius: 8px; color: #222;
  color-scheme: light;
  line-height: 1.4; margin: 0.5em 0; max-width: 44em; padding: 0.6em 1em 0.8em; }
.scatter fieldset { border: 0; margin: 0 0 0.3em; min-width: 0; padding: 0; }
.scatter legend { float: left; font-size: 1em; font-weight: 600; margin: 0 0.8em 0 0; padding: 0;
  width: auto; }
.scatter fieldset label { cursor: pointer; display: inline-block; margin: 0 1em 0 0; }
.scatter fieldset input { accent-color: #176d8a; margin: 0 0.35em 0 0; }
.scatter svg { height: 14px; overflow: visible; vertical-align: -2px; width: 14px; }
.scatter .plot { aspect-ratio: 4 / 3; border: 1px solid #767676; border-radius: 4px;
  margin: 0.4em 0 0; position: relative; }
.scatter .plot label { --x: var(--x0); --y: var(--y0); }
.scatter .plot input, .scatter .plot svg { height: 14px; left: var(--x); margin: -7px 0 0 -7px;
  position: absolute; top: var(--y); width: 14px; }
.scatter .plot input { opacity: 0; }
.scatter .plot svg { cursor: pointer; }
.scatter .plot label:hover svg { transform: scale(1.5); z-index: 2; }
.scatter .plot input:is(:checked, :focus-visible) ~ svg { border-radius: 50%;
  outline: 3px solid #222; outline-offset: 2px; z-index: 1; }
.scatter p { margin: 0; min-height: 3em; }
.scatter .plot span { left: 0; opacity: 0; pointer-events: none; position: absolute; right: 0;
  top: 100%; }
.scatter .plot label:hover span,
.scatter .plot:not(:has(label:hover)) input:is(:checked, :focus-visible) ~ span { opacity: 1; }
.scatter:has(.plot label:hover, .plot input:is(:checked, :focus-visible)) p { visibility: hidden; }
.scatter:has(i) p { min-height: 9.5em; }
.scatter .plot small { display: inline-block; margin: 0.4em 0.8em 0 0; }
.scatter .plot i { display: block; height: 96px; image-rendering: pixelated; width: 96px; }
@media (prefers-reduced-motion: no-preference) {
  .scatter .plot :is(input, svg) { transition: left 0.9s, top 0.9s; }
}
"""


def explore(maps, groupings, *, title, pictures=None):
    """Show maps of the same points on which every point says what it is.

    The reader chooses the map, what to colour by, and a group to single out. Pointing at a mark,
    or walking through the marks with the arrow keys, tells its group in each grouping. When
    another map is chosen, the points move to their places there.

    Parameters
    ----------
    maps : dict from str to array (N, 2)
        Points, as `embedding.project` gives them, under the name of the map.
    groupings : dict from str to (labels, names)
        What to colour by, under its name: labels (N,), and names or None, as
        `plots.show_embedding` takes them.
    title : str
        What the maps show, in a sentence: a screen reader reads it, and it stands for the maps,
        with a static figure of them, where HTML is not shown.
    pictures : dict from str to array (N, h, w) or (N, h, w, 3), optional
        Of each point a small picture, RGB in 0..1, or a heat map, in the colours of
        `plots.show_heatmap` and on a scale of its own, under its name: shown with what the point
        is. Of 200 points, a picture and a map of 64 × 64 pixels make the page 0.6 MB larger.

    Raises
    ------
    ValueError
        If there is nothing to draw, or something does not fit, as in `plots.show_embedding`; if
        pictures are not in 0..1, or so many or large that no sheet of 20 across can hold them.
    """
    if not maps or not groupings:
        raise ValueError("explore needs at least one map and one grouping.")
    for points in maps.values():
        for labels, _ in groupings.values():
            check_map(points, labels)
    sheets = {name: _sheet(name, array, points) for name, array in (pictures or {}).items()}
    html = _page(maps, groupings, title, sheets)
    own = "scatter-" + hashlib.sha256(html.encode()).hexdigest()[:8]
    bundle = {
        "text/html": html.replace("<own>", own),
        "image/png": _picture(maps, groupings, title),
        "text/plain": title,
    }
    display(bundle, raw=True)


def _page(maps, groupings, title, sheets):
    """The HTML, in which <own>, which no escaped text holds, stands for a name of its own."""
    rules = [
        f"#<own>:has(.m{m}:checked) .plot label {{ --x: var(--x{m}); --y: var(--y{m}); }}"
        for m in range(len(maps))
    ]
    marks, keys, texts, groups = [], [], [], []
    for g, (what, (labels, names)) in enumerate(groupings.items()):
        kinds, index = np.unique(labels, return_inverse=True)
        known = [group_name(kind, names) for kind in kinds]
        marks += [_mark(f"<own>-{g}-{i}", *style) for i, style in enumerate(group_styles(kinds))]
        keys.append(_key(g, known))
        texts.append([f"{what}: {known[i]}" for i in index])
        groups.append(index)
        rules += _rules(g, len(kinds))
    for s, sheet in enumerate(sheets.values()):
        rules.append(
            f"#<own> .s{s} {{ background: url(data:image/webp;base64,{sheet}) "
            f"0 0 / {96 * _ACROSS}px {96 * -(-len(groups[0]) // _ACROSS)}px; }}"
        )
    points = zip(*map(_places, maps.values()), strict=True)
    texts = [escape("; ".join(of_one)) for of_one in zip(*texts, strict=True)]
    if sheets:
        texts = [f"{text}<br>{_thumbnails(sheets, i)}" for i, text in enumerate(texts)]
    labels = "".join(map(_point, points, zip(*groups, strict=True), texts))
    choices = _choice("Map", "m", list(maps)) + _choice("Colour by", "g", list(groupings))
    return (
        f'<div class="scatter" id="<own>"><style>{_STYLE}{"".join(rules)}</style>'
        f'<svg style="display: none">{"".join(marks)}</svg>{choices}'
        f'<div class="plot" role="radiogroup" aria-label="{escape(title)}">{labels}</div>'
        f"<p>Point at a mark, or walk through them with the arrow keys.</p>{''.join(keys)}</div>"
    )


def _rules(g, kinds):
    """The CSS that shows grouping g where it is chosen, and fades what is not singled out."""
    chosen = f"#<own>:has(.g{g}:checked)"
    shown = [
        f"#<own> .by{g}, {chosen} .by0 {{ display: none; }}",
        f"{chosen} .by{g} {{ display: revert; }}",
    ]
    faded = [
        f"{chosen}:has(.only{g}-{i}:checked) .plot :not(.is{g}-{i}) > svg {{ opacity: 0.1; }}"
        for i in range(kinds)
    ]
    return (shown if g else []) + faded


def _places(points):
    """The places of points in a frame of 4 : 3, to scale, in percent from the left and the top."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = ((high - low) / [4, 3]).max() or 1.0
    return 50 + 92 * (points - (low + high) / 2) / (scale * np.array([4, -3]))


_ACROSS = 20
_LONGEST = 16383  # pixels of a WebP picture's side


def _sheet(name, pictures, points):
    """The pictures of all points in rows of _ACROSS, as WebP in base64."""
    pictures = np.asarray(pictures, np.float32)
    fits = pictures.ndim == 3 or pictures.shape[3:] == (3,)
    if pictures.shape[:1] != (len(points),) or not fits:
        raise ValueError(
            f"pictures must be ({len(points)}, h, w) or ({len(points)}, h, w, 3), one of each "
            f"point, got {pictures.shape} for {name}."
        )
    if not np.isfinite(pictures).all():
        raise ValueError(f"pictures must be finite, but those of {name} hold NaN or infinity.")
    if pictures.ndim == 4 and not 0 <= pictures.min() <= pictures.max() <= 1:
        raise ValueError(
            f"coloured pictures must lie in 0..1, but those of {name} reach from "
            f"{pictures.min():g} to {pictures.max():g}: divide bytes by 255."
        )
    rows = -(-len(pictures) // _ACROSS)
    if max(_ACROSS * pictures.shape[2], rows * pictures.shape[1]) > _LONGEST:
        raise ValueError(
            f"the {len(pictures)} pictures of {name}, {pictures.shape[1]} × {pictures.shape[2]} "
            f"pixels each, do not fit into one of {_LONGEST}: give fewer or smaller ones."
        )
    quality = 75
    if pictures.ndim == 3:
        quality = 101  # nothing is lost: what is single pixels in a photo is a finding in a map
        largest = np.abs(pictures).max(axis=(1, 2), keepdims=True)
        shares = pictures / np.where(largest > 0, largest, 1)
        signed = shares.min() < 0
        colours = mpl.colormaps[SIGNED if signed else MAGNITUDE]
        pictures = colours((shares + 1) / 2 if signed else shares)[..., :3]
    count, height, width, _ = pictures.shape
    sheet = np.zeros((rows * _ACROSS, height, width, 3))
    sheet[:count] = pictures
    sheet = sheet.reshape(rows, _ACROSS, height, width, 3).swapaxes(1, 2)
    sheet = (255 * sheet.reshape(rows * height, _ACROSS * width, 3)).round().astype(np.uint8)
    _, webp = cv2.imencode(".webp", sheet[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])
    return base64.b64encode(webp.tobytes()).decode()


def _thumbnails(sheets, i):
    """The pictures of a point under their names."""
    x, y = 96 * (i % _ACROSS), 96 * (i // _ACROSS)
    return "".join(
        f'<small>{escape(name)}<i class="s{s}" style="background-position:-{x}px -{y}px"></i>'
        "</small>"
        for s, name in enumerate(sheets)
    )


def _point(places, groups, text):
    """A radio button, its mark in each colouring, and what it is, at its place in each map."""
    style = ";".join(f"--x{m}:{x:.1f}%;--y{m}:{y:.1f}%" for m, (x, y) in enumerate(places))
    marks = "".join(_use(g, i) for g, i in enumerate(groups))
    kinds = " ".join(f"is{g}-{i}" for g, i in enumerate(groups))
    return (
        f'<label class="{kinds}" style="{style}"><input type="radio" name="<own>-point">{marks}'
        f"<span>{text}</span></label>"
    )


def _choice(legend, kind, options):
    """Radio buttons for the maps or the groupings; nothing if there is only one."""
    rows = "".join(
        f'<label><input type="radio" name="<own>-{kind}" class="{kind}{i}"{_checked(i)}>'
        f"{escape(option)}</label>"
        for i, option in enumerate(options)
    )
    hidden = " hidden" if len(options) == 1 else ""
    return f"<fieldset{hidden}><legend>{legend}</legend>{rows}</fieldset>"


def _key(g, known):
    """What the marks of a grouping mean, as radio buttons that single one group out."""
    rows = "".join(
        f'<label><input type="radio" name="<own>-only{g}" class="only{g}-{i}">'
        f"{_use(g, i)} {escape(name)}</label>"
        for i, name in enumerate(known)
    )
    every = f'<label><input type="radio" name="<own>-only{g}" checked>all</label>'
    return f'<fieldset class="by{g}"><legend>Show</legend>{every}{rows}</fieldset>'


def _checked(i):
    return " checked" if i == 0 else ""


def _mark(name, colour, marker):
    """A symbol with the shape that matplotlib gives the marker."""
    style = MarkerStyle(marker)
    (corners,) = style.get_path().transformed(style.get_transform()).to_polygons()
    shape = " ".join(f"{12 * x:.2f},{-12 * y:.2f}" for x, y in corners)
    return (
        f'<symbol id="{name}" viewBox="-7 -7 14 14" overflow="visible"><polygon points="{shape}" '
        f'fill="{colour}" stroke="#222" stroke-width="0.6"/></symbol>'
    )


def _use(g, i):
    return f'<svg class="by{g}" aria-hidden="true"><use href="#<own>-{g}-{i}"/></svg>'


def _picture(maps, groupings, title):
    """The maps in all colourings as a PNG, base64."""
    size = (3.2 * len(maps) + 2.4, 2.8 * len(groupings) + 0.4)
    figure, axes = plt.subplots(
        len(groupings), len(maps), figsize=size, squeeze=False, layout="constrained"
    )
    for row, (what, (labels, names)) in zip(axes, groupings.items(), strict=True):
        for axis, (name, points) in zip(row, maps.items(), strict=True):
            last = axis is row[-1]
            show_embedding(points, labels, names=names, ax=axis, title=name, legend=last)
        row[0].set_ylabel(f"by {what}")
    figure.suptitle(title, fontsize=10)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    plt.close(figure)
    return base64.b64encode(picture.getvalue()).decode()
