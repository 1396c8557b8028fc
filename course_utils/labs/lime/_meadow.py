"""Draws the mushrooms of labs.draw_meadows: one in a meadow, with other things about it.

A canvas is uint8 (192, 192, 4): red, green, blue, and what the pixel shows, an index into PARTS.
Every stroke sets all four, so the truth about a picture cannot part from the picture.
"""

import cv2
import numpy as np

SIZE, FINE = 48, 4  # a picture's size, and how many times finer it is drawn
WIDE = SIZE * FINE
PARTS = ("meadow", "mushroom", "leaf", "stone", "snail", "flower")
MEADOW, MUSHROOM, LEAF, STONE, SNAIL, FLOWER = range(6)
KINDS = ("dome", "cone", "funnel")
THINGS = PARTS[2:]

GRASS = np.array([(70, 104, 44), (122, 156, 70)])
CAPS = np.array([(176, 48, 36), (126, 82, 48), (206, 160, 78), (222, 206, 180), (98, 60, 58)])
STEM = np.array([(226, 214, 190), (196, 178, 148)])


def draw_meadow(kind, things, rng):
    """Draw a meadow with a mushroom of a kind, 0 to 2, and those of THINGS that are True."""
    canvas = _grass(rng)
    places = [(rng.uniform(56, 136), rng.uniform(118, 168))]
    height = rng.uniform(62, 84)
    for _ in THINGS:  # a place for each, whether it is there or not, so that none moves another
        places.append(_free_place(places, rng))
    for draw, there, (x, y) in zip(
        (_leaf, _stone, _snail, _flower), things, places[1:], strict=True
    ):
        own = rng.spawn(1)[0]
        if there:
            draw(canvas, x, y, own)
    _mushroom(canvas, kind, *places[0], height, rng)
    return canvas


def shrink(canvas):
    """Return a canvas's picture, float32 (48, 48, 3) in 0..1, and its parts, int64 (48, 48).

    A pixel's part is what most of the 16 fine pixels show that it is made of.
    """
    picture = cv2.resize(canvas[..., :3], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    fine = canvas[..., 3].reshape(SIZE, FINE, SIZE, FINE).transpose(0, 2, 1, 3)
    fine = fine.reshape(SIZE, SIZE, -1)
    counts = [np.count_nonzero(fine == part, axis=-1) for part in range(len(PARTS))]
    return np.float32(picture) / 255, np.argmax(counts, axis=0)


def _grass(rng):
    """A meadow of blades of many greens, lighter here and darker there."""
    light = cv2.resize(rng.random((5, 5), np.float32), (WIDE, WIDE))[..., np.newaxis]
    canvas = np.zeros((WIDE, WIDE, 4), np.uint8)
    canvas[..., :3] = GRASS[0] + light * (GRASS[1] - GRASS[0])
    for green in np.linspace(GRASS[0], GRASS[1], 8) * 1.03:
        feet = rng.uniform(0, WIDE, (45, 2))
        tips = feet + rng.uniform((-6, -20), (6, -8), (45, 2))
        blades = _whole(np.stack([feet, tips], axis=1))
        cv2.polylines(canvas, [*blades], False, (*green.tolist(), MEADOW), 2)
    return canvas


def _free_place(taken, rng):
    """A place that is clear of the mushroom, whose middle lies above its foot, and of others."""
    foot = taken[0]
    for _ in range(200):
        x, y = rng.uniform(18, WIDE - 18, 2)
        far = np.hypot(x - foot[0], y - (foot[1] - 36)) > 66
        if far and all(np.hypot(x - a, y - b) > 42 for a, b in taken[1:]):
            break
    return x, y


def _mushroom(canvas, kind, x, y, height, rng):
    """A mushroom whose foot is at (x, y); its cap's colour says nothing of its kind."""
    cap = CAPS[rng.integers(len(CAPS))] * rng.uniform(0.9, 1.1)
    wide, thick, lean = height * rng.uniform(0.44, 0.56), height * 0.1, rng.uniform(-5, 5)
    top, bulge = y - height, (rng.uniform(1.9, 2.6), rng.uniform(1.1, 1.5), 1)[kind]
    brim = top + height * (rng.uniform(0.42, 0.56) if kind < 2 else 0.4)
    stem = [(x - 1.2 * thick, y), (x + 1.2 * thick, y)]
    stem += [(x + lean + thick, brim - 3), (x + lean - thick, brim - 3)]
    _fill(canvas, stem, STEM[0], MUSHROOM)
    _fill(canvas, stem[:3], STEM[1], MUSHROOM)
    x += lean
    across = np.linspace(-1, 1, 31)
    edge = zip(x + wide * across, top + (brim - top) * np.abs(across) ** bulge, strict=True)
    if kind == 2:
        edge = [(x - wide, top), (x + wide, top), (x + thick, brim + 8), (x - thick, brim + 8)]
    _fill(canvas, edge, cap, MUSHROOM)
    _ellipse(canvas, x, (brim, brim, top)[kind], wide, 5, cap * (0.72, 0.72, 1.2)[kind], MUSHROOM)


def _leaf(canvas, x, y, rng):
    turn, colour = rng.uniform(0, 180), np.array((214, 128, 34)) * rng.uniform(0.85, 1.1)
    _ellipse(canvas, x, y, 17, 9, colour, LEAF, turn)
    way = 17 * np.cos(np.radians(turn)), 17 * np.sin(np.radians(turn))
    _line(canvas, [(x - way[0], y - way[1]), (x + way[0], y + way[1])], 2, colour * 0.7, LEAF)


def _stone(canvas, x, y, rng):
    shade = rng.uniform(105, 150)
    _ellipse(canvas, x, y, 17, 12, (shade - 30, shade - 30, shade - 34), STONE)
    _ellipse(canvas, x - 2, y - 3, 13, 8, (shade, shade, shade - 4), STONE)


def _snail(canvas, x, y, rng):
    way = rng.choice((-1, 1))
    _ellipse(canvas, x + way * 4, y + 9, 18, 4, (150, 132, 96), SNAIL)
    _line(canvas, [(x + way * 20, y + 8), (x + way * 23, y - 4)], 3, (150, 132, 96), SNAIL)
    for radius, colour in ((13, (112, 70, 40)), (9, (176, 124, 74)), (5, (112, 70, 40))):
        _ellipse(canvas, x - way * 3, y, radius, radius, colour, SNAIL)


def _flower(canvas, x, y, rng):
    turn = rng.uniform(0, 72)
    for petal in np.radians(turn + np.arange(0, 360, 72)):
        _ellipse(canvas, x + 9 * np.cos(petal), y + 9 * np.sin(petal), 8, 8, (74, 92, 206), FLOWER)
    _ellipse(canvas, x, y, 5, 5, (236, 220, 120), FLOWER)


def _whole(points):
    return np.round([*points]).astype(np.int32)


def _fill(canvas, corners, colour, what):
    cv2.fillPoly(canvas, [_whole(corners)], (*np.clip(colour, 0, 255).tolist(), what))


def _line(canvas, ends, thick, colour, what):
    cv2.line(canvas, *_whole(ends).tolist(), (*np.clip(colour, 0, 255).tolist(), what), thick)


def _ellipse(canvas, x, y, wide, high, colour, what, turn=0.0):
    centre, axes = _whole([(x, y), (wide, high)]).tolist()
    ink = (*np.clip(colour, 0, 255).tolist(), what)
    cv2.ellipse(canvas, centre, axes, turn, 0, 360, ink, cv2.FILLED)
