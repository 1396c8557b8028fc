"""Make scoreboard.json: every method that draws a heat map, marked on twenty networks and more.

Twenty detectors for one tank, which the course ships: five seeds each of four recipes, fair and
confounded, with patches in their training and without. Each gets scenes of its own, and each method
its usual settings. Beside them stand five linear models, whose truth is known to the last digit,
and the network that finds grey rectangles. Marks are averaged over a network's images; an interval
is that of the mean over networks (Student's, 95 %), so that it speaks about other networks.

With 50 images for each network, 1,000 in all, about 30 minutes on one core, no network; needs
nothing beyond the course itself. ``--images 1000`` takes as many for each network, and twenty times
as long. It can be stopped and started again: what is finished is kept in _build/scoreboard, for
these settings, networks and pictures, and it says how long the rest will take. It cannot tell that
the code of a method or mark has changed: delete _build/scoreboard then. With ``--networks``, it
makes only the first so many networks. With ``--compare``, it leaves scoreboard.json as it is, and
says how the marks differ from those that are there.
"""

import argparse
import datetime
import functools
import hashlib
import json
import os
import platform
import re
import time
from pathlib import Path

import numpy as np
from _common import DATA, read_sums, write_shipped_text, write_text
from _contestants import (
    BLIND,
    DRAWN,
    FILES,
    RECIPES,
    SEEDS,
    TRUTH,
    contestants,
    detector,
    facts,
    linear,
    logits,
    rectangles,
)
from scipy import stats

from course_utils import metrics
from course_utils.at_scale import explain_dataset
from course_utils.attack import randomize_layers

KEPT = DATA.parent / "_build" / "scoreboard"
# Of a network's images, how many get the marks that take long, and how these are set.
SHARES = {"curves": 0.4, "road": 0.2, "again": 0.04}
STEPS, SAMPLES, RADIUS, NOISE, PATCH = 64, 4, 0.02, 0.02, 16
MINUTES = 30  # on one core with 50 images, as those took that were measured with 20


# -- Marks ---------------------------------------------------------------------------------------


def marks_of_truth(heatmaps, masks):
    """How much of the maps lies where it should."""
    return {
        "mass": metrics.mass_inside(heatmaps, masks),
        "rank": metrics.rank_inside(heatmaps, masks),
        "hit": metrics.pointing_game(heatmaps, masks),
    }


def marks_of_network(model, images, heatmaps, reference, counts):
    """What the network itself says when pixels go."""
    some, few = slice(counts["curves"]), slice(counts["road"])
    asked = model, images[some], 1, heatmaps[some]
    hide = {"fill": reference, "score": "logit"}
    empty = logits(model, reference[np.newaxis])[0]
    span = logits(model, images[some]) - empty
    found = {}
    for name in ("deletion", "insertion"):
        areas = getattr(metrics, f"{name}_curve")(*asked, steps=STEPS, **hide).areas
        found[name] = (areas - empty) / span
    found["road"] = metrics.road_curve(model, images[few], 1, heatmaps[few]).areas
    found["infidelity"] = metrics.infidelity(
        *asked, patch=PATCH, stride=PATCH // 2, scaled=True, **hide
    )
    return found


@functools.lru_cache(maxsize=1)
def forgetful(who, model):
    """The weights of a network that has forgotten all, others for each seed of a recipe."""
    layers, seed = len(model.get_weights()) // 2, SEEDS.index(int(who.rsplit(" ", 1)[1]))
    return randomize_layers(model, top=layers, seed=seed).get_weights()


def marks_of_repetition(who, model, images, heatmaps, explain, options, drawn):
    """How the maps change with noise, seed, target, and when the network forgets."""
    alike = functools.partial(metrics.rank_correlation, heatmaps)
    noise = np.random.default_rng(0).normal(0, NOISE, images.shape)
    found = {
        "sensitivity": metrics.max_sensitivity(
            functools.partial(explain, **options), model, images, 1, radius=RADIUS, samples=SAMPLES
        ),
        "noise": alike(explain(model, np.float32(images + noise), 1, **options)),
        "logit": alike(explain(model, images, 0, **options)),
    }
    if drawn:
        found["seeds"] = alike(explain(model, images, 1, **options | {"seed": 1}))
    own, fresh = model.get_weights(), forgetful(who, model)
    try:
        for way in ("top-down", "bottom-up"):
            rows = []
            for k in range(4, len(own) + 1, 4):  # two more layers, each a kernel and a bias
                down = own[: len(own) - k] + fresh[len(own) - k :]
                model.set_weights(down if way == "top-down" else fresh[:k] + own[k:])
                rows.append(alike(explain(model, images, 1, **options)))
            found[way] = averaged(rows)
        found["forgotten"] = rows[-1]  # all layers, by either way
    finally:
        model.set_weights(own)
    return found


def averaged(rows):
    """The mean over rows of what is defined in them, NaN where nothing is."""
    rows = np.asarray(rows, float)
    count = np.isfinite(rows).sum(axis=0)
    sums = np.where(np.isfinite(rows), rows, 0).sum(axis=0)
    return np.divide(sums, count, out=np.full(np.shape(sums), np.nan), where=count > 0)


def gap(name, model, images, heatmaps, reference):
    """How far the map is from adding up to what it claims to share out; nothing if it does not."""
    if name.startswith("relevance"):
        whole = logits(model, images)
        return {"gap": np.abs(heatmaps.sum(axis=(1, 2)) - whole) / np.abs(whole)}
    starts = {"gradient × input": 0.0, "integrated gradients": reference}
    if name not in starts:
        return {}
    return {
        "gap": metrics.completeness_gap(model, images, 1, heatmaps, baseline=starts[name]),
    }


def marks_of_detector(who, name, counts, folder):
    """All marks of a method on a detector for the tank."""
    model, images, (masks, _), reference = detector(who, counts["images"])
    if name == TRUTH:
        heatmaps, found = masks.astype(float), {}
    else:
        explain, options = contestants(reference)[name]
        store = folder / "maps" / plain_name(who) / plain_name(name)
        store = explain_dataset(explain, model, images, store, targets=1, **options)
        heatmaps, few = store["heatmaps"][:].astype(float), images[: counts["timed"]]
        start = time.process_time()
        explain(model, few, 1, **options)
        found = {"ms": [1000 * (time.process_time() - start) / len(few)]}
        again = images[: counts["again"]], heatmaps[: counts["again"]]
        found |= marks_of_repetition(who, model, *again, explain, options, name in DRAWN)
        found |= gap(name, model, images, heatmaps, reference)
    found |= marks_of_truth(heatmaps, masks)
    return found | marks_of_network(model, images, heatmaps, reference, counts)


def marks_of_linear(who, name, counts, folder):
    """The rank correlation with the truth of a linear model; nothing where a method refuses it."""
    model, x, y, exact = linear(int(who.rsplit(" ", 1)[1]))
    pick = slice(counts["linear"])
    if name == TRUTH:
        return {}
    explain, options = contestants(0.0)[name]
    try:
        heatmaps = explain(model, x[pick], y[pick], **options)
    except ValueError as error:
        if "convolution" not in str(error):
            raise
        return {}
    return {"exact": metrics.rank_correlation(heatmaps, exact[pick])}


def marks_of_rectangles(who, name, counts, folder):
    """How much of the maps of rectangles lies on them."""
    model, images, masks, plain = rectangles(counts["rectangles"])
    if name == TRUTH:
        return {}
    explain, options = contestants(plain)[name]
    found = marks_of_truth(explain(model, images, 1, **options), masks)
    return {f"{mark} rectangles": values for mark, values in found.items()}


# -- The work, and what is kept of it ------------------------------------------------------------

FIELDS = {
    **{f"{recipe} {seed}": marks_of_detector for seed in SEEDS for recipe in RECIPES},
    **{f"linear {seed}": marks_of_linear for seed in SEEDS},
    "rectangles": marks_of_rectangles,
}


def plain_name(name):
    """A name that every disk takes."""
    return re.sub(r"[^\w-]+", "_", name)


def counts_of(images):
    """How many images of a network get which marks."""
    counts = {mark: max(1, round(share * images)) for mark, share in SHARES.items()}
    return {"images": images, "timed": 2, "linear": images, "rectangles": images} | counts


def settings_of(counts):
    """All settings that the marks depend on, as JSON can keep them."""
    fixed = {"steps": STEPS, "samples": SAMPLES, "radius": RADIUS, "noise": NOISE, "patch": PATCH}
    usual = {
        name: {key: value for key, value in options.items() if np.isscalar(value)}
        for name, (_, options) in contestants(np.zeros((1, 1, 1))).items()
    }
    return {"counts": counts, "metrics": fixed, "methods": usual}


def digest_of(counts):
    """Another name for each state of the settings, the networks and the pictures."""
    sums = read_sums()
    state = settings_of(counts) | {"files": {name: sums[name] for name in FILES}}
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:12]


def work(counts, fields, folder):
    """Mark every method on every network, and keep each result as soon as it is there."""
    units = {
        (who, name): folder / plain_name(who) / f"{plain_name(name)}.json"
        for who in fields
        for name in [*contestants(0.0), TRUTH]
    }
    found = {unit: json.loads(path.read_text()) for unit, path in units.items() if path.is_file()}
    left = [unit for unit in units if unit not in found]
    print(f"{len(found)} of {len(units)} are finished; {foretold(found, left, counts)}", flush=True)
    for k, (who, name) in enumerate(left, start=1):
        path = units[who, name]
        if path.is_file():  # another process has been at it meanwhile
            found[who, name] = json.loads(path.read_text())
            continue
        start = time.process_time()
        marks = FIELDS[who](who, name, counts, folder)
        marks = {mark: [number(value) for value in values] for mark, values in marks.items()}
        seconds = round(time.process_time() - start, 2)
        found[who, name] = {"seconds": seconds, "marks": marks}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found[who, name]))
        rest = foretold(found, left[k:], counts)
        print(f"{who}: {name}, {seconds:.1f} s; {rest}", flush=True)
    return {unit: found[unit] for unit in units}


def foretold(found, left, counts):
    """How long the rest will take, from what as much took before."""
    took = {}
    for (who, name), unit in found.items():
        took.setdefault((FIELDS[who], name), []).append(unit["seconds"])
    known = [np.mean(took[FIELDS[who], name]) for who, name in left if (FIELDS[who], name) in took]
    if len(known) < len(left) / 2:
        whole = MINUTES * counts["images"] / 50
        return f"all of it takes about {whole:.0f} minutes, what is left has no like yet"
    return f"about {np.sum(known) * len(left) / max(len(known), 1) / 60:.0f} minutes are left"


def number(value, digits=5):
    """A float as JSON can keep it: a few digits, and nothing where it is undefined."""
    return float(f"{value:.{digits}g}") if np.isfinite(value) else None


# -- The table -----------------------------------------------------------------------------------

# Mark, what it is called, which way is better, and what it says.
OF_RECIPE = [
    ("mass", "mass", "high", "the share of the positive values that lies on the cause"),
    ("rank", "rank", "high", "of as many largest values as the cause has pixels, the share on it"),
    ("hit", "hits", "high", "how often the largest value lies on the cause"),
]
OF_ALL = {
    "Asking the network": [
        ("deletion", "deletion", "low", "area under the logit while pixels go, the largest first"),
        ("insertion", "insertion", "high", "area under the logit while they come, largest first"),
        ("road", "ROAD", "low", "mean probability while pixels go and are painted over"),
        ("infidelity", "infidelity", "low", "what the map does not foretell of covered patches"),
        ("gap", "gap", "low", "how far the map is from the sum that it claims to share out"),
    ],
    "Asking again": [
        (
            "sensitivity",
            "sensitivity",
            "low",
            "most that weak noise changes, as a share of the map",
        ),
        ("noise", "noise", "high", "rank correlation with the map of a picture with weak noise"),
        ("seeds", "seeds", "high", "rank correlation with the map from another seed"),
        ("top-down", "top-down", "zero", "rank correlation while layers forget from the top down"),
        (
            "bottom-up",
            "bottom-up",
            "zero",
            "rank correlation while layers forget from the bottom up",
        ),
        ("forgotten", "all layers", "zero", "rank correlation when all layers have forgotten"),
        ("logit", "other answer", "low", "rank correlation with the map of the other answer"),
    ],
    "Other truths": [
        ("exact", "linear", "high", "rank correlation with the truth of a linear model"),
        ("mass rectangles", "mass", "high", "the share that lies on a grey rectangle"),
        ("rank rectangles", "rank", "high", "the same of as many largest values as it has pixels"),
        ("hit rectangles", "hits", "high", "how often the largest value lies on the rectangle"),
    ],
    "Cost": [("ms", "ms", "low", "milliseconds of the processor's time for a map")],
}


def columns():
    """From each column's key to its mark, its recipe if it is of one, and its words."""
    found = {}
    for recipe in RECIPES:
        for mark, called, better, says in OF_RECIPE:
            words = {"group": f"The cause: {recipe}", "name": called, "better": better}
            found[f"{mark} {recipe}"] = mark, recipe, words | {"says": says}
    for group, rows in OF_ALL.items():
        for mark, called, better, says in rows:
            words = {"group": group, "name": called, "better": better, "says": says}
            found[mark] = mark, "", words
    return found


def cell(units, name, mark, recipe):
    """Mean over networks, its interval, and how many networks it is of; None where undefined."""
    means = []
    for (who, method), unit in units.items():
        values = [v for v in unit["marks"].get(mark, ()) if v is not None]
        if method == name and values and (not recipe or who.rsplit(" ", 1)[0] == recipe):
            means.append(np.mean(values))
    if not means:
        return None
    low = high = None
    if len(means) > 1:
        half = stats.t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / np.sqrt(len(means))
        low, high = number(np.mean(means) - half), number(np.mean(means) + half)
    return [number(np.mean(means)), low, high, len(means)]


def table(units, counts, fields):
    """The whole table, with how it was made."""
    rows, found = [], columns()
    for name in dict.fromkeys(method for _, method in units):
        cells = {key: cell(units, name, mark, recipe) for key, (mark, recipe, _) in found.items()}
        kind = "never looks" if name in BLIND else "the truth" if name == TRUTH else "looks"
        rows.append({"name": name, "kind": kind} | {k: v for k, v in cells.items() if v})
    detectors = [who for who in fields if FIELDS[who] is marks_of_detector]
    made = {
        "by": "data/build/scoreboard.py",
        "date": datetime.date.today().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores, of which one",
        "minutes": round(sum(unit["seconds"] for unit in units.values()) / 60, 1),
        "networks": len(detectors),
        "images": counts["images"] * len(detectors),
        **settings_of(counts),
    }
    return {
        "made": made,
        "columns": {k: w for k, (_, _, w) in found.items() if any(k in row for row in rows)},
        "rows": rows,
        "networks": [facts(who, counts["images"]) for who in detectors],
    }


def processor():
    """What the processor calls itself."""
    told = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", told.read_text(), re.M) if told.is_file() else []
    return (names or [platform.processor() or platform.machine()])[0]


def differences(new, old):
    """By how much the marks of two tables differ at most, but for the times, in words."""
    other = {row["name"]: row for row in old["rows"]}
    most = max(
        (abs(cell[0] - other[row["name"]][key][0]), row["name"], key)
        for row in new["rows"]
        for key, cell in row.items()
        if isinstance(cell, list) and key != "ms" and key in other.get(row["name"], {})
    )
    return "scoreboard.json: at most {:.2g} apart ({}, {})".format(*most)


def main():
    """Do what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50, help="for each network")
    parser.add_argument("--networks", type=int, help="only the first so many detectors")
    parser.add_argument("--compare", action="store_true", help="write nothing, say what differs")
    given = parser.parse_args()
    counts = counts_of(given.images)
    everyone = [who for who in FIELDS if FIELDS[who] is marks_of_detector]
    fields = [who for who in FIELDS if who not in everyone[given.networks or len(everyone) :]]
    made = table(work(counts, fields, KEPT / digest_of(counts)), counts, fields)
    if given.compare:
        return print(differences(made, json.loads((DATA / "scoreboard.json").read_text())))
    lines = json.dumps(made, ensure_ascii=False, indent=1)
    lines = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", lines)
    write_shipped_text("scoreboard.json", lines + "\n")


if __name__ == "__main__":
    main()
