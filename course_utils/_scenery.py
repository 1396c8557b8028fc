"""Draws the scenes of datasets.make_scenes: a field under a sky, perhaps with a tank in it.

A canvas is uint8 (256, 256, 4): red, green, blue, and what the pixel shows, one of seven things.
Every stroke sets all four, so the truth about a picture cannot part from the picture. What lies in
a shadow counts as grass.
"""

import cv2
import numpy as np

SIZE, FINE = 64, 4  # a picture's size, and how many times finer it is drawn
WIDE = SIZE * FINE
GRASS, SKY, TANK, HILLS, TREES, BUSHES, ROCKS = range(7)  # in the order of datasets.THINGS
# A table for cv2.LUT from what a fine pixel shows to eight bytes, a one in that thing's own; as
# float64, because cv2.LUT takes no other numbers of 64 bits.
_ONES = np.eye(256, 8, dtype=np.uint8).view(np.float64)
_DARKER = np.uint8(np.arange(256)[:, None, None] * (0.62, 0.62, 0.62, GRASS))  # in a shadow
_ARCH = np.linspace(np.pi, 0, 8)  # the angles of a rock's corners
_STEPS = np.arange(3)[:, np.newaxis, np.newaxis]  # a clump's three shades
_LEAN = (0.12, 0.22) * _STEPS  # how far left and up they shift

# Colours go from shade to light, or from far to near.
MEADOW = np.array([(176, 180, 104), (98, 132, 54)])
LEAVES = np.array([(36, 62, 30), (56, 90, 38), (88, 122, 52)])
NEEDLES = np.array([(26, 52, 40), (48, 82, 56)])
STONE = np.array([(84, 82, 74), (124, 120, 108), (162, 156, 142)])
WHITE_CLOUD = np.array([(206, 220, 236), (238, 244, 250), (255, 255, 255)])
GREY_CLOUD = np.array([(116, 122, 132), (134, 140, 149), (154, 159, 167)])
CAMOUFLAGE = np.array([(52, 62, 38), (92, 102, 58), (136, 118, 78)], np.uint8)
TRACKS, WHEELS, OUTLINE = (40, 40, 34), (92, 92, 72), (30, 34, 22)


def draw_scene(tank, cloudy, land, sky):
    """Draw a scene with two generators, so that the land does not depend on the weather."""
    canvas = np.empty((WIDE, WIDE, 4), np.uint8)  # the sky and the field fill it
    horizon = _integer(land, 100, 120)
    (_draw_clouds if cloudy else _draw_sunshine)(canvas, horizon, sky)
    _draw_field(canvas, horizon, land)
    for y, x, width, draw in sorted(_plan(tank, horizon, land), key=lambda thing: thing[0]):
        nearness = 0.6 + 0.5 * (y - horizon) / (WIDE - horizon)
        draw(canvas, x, y, width * nearness, land)
    return canvas


def shrink(canvas):
    """Return a canvas's picture, float32 (64, 64, 3) in 0..1, and its masks, bool (64, 64, 7).

    A pixel belongs to the mask of a thing if at least half of its 16 fine pixels show that.
    """
    colours = cv2.cvtColor(_sum_squares(canvas, np.uint16), cv2.COLOR_RGBA2RGB)
    ones = cv2.LUT(cv2.extractChannel(canvas, 3), _ONES).view(np.uint8)
    shows = _sum_squares(ones, np.uint8)[..., :7] >= FINE**2 // 2
    return np.rint(colours / np.float32(FINE**2)) / 255, shows


def _sum_squares(canvas, dtype):
    """Sum the 16 fine pixels of each pixel, in a dtype of which the channels fill 64 bits."""
    rows = canvas.reshape(SIZE, FINE, -1).sum(1, dtype=dtype).view(np.uint64)
    sums = rows[:, 0::FINE] + rows[:, 1::FINE] + rows[:, 2::FINE] + rows[:, 3::FINE]
    return sums.view(dtype).reshape(SIZE, SIZE, -1)


def _draw_sunshine(canvas, horizon, rng):
    """Fill the canvas with a blue sky, a sun and a few small clouds."""
    _fill_sky(canvas, (58, 128, 214), (200, 226, 242), horizon)
    centre = _integer(rng, 24, WIDE - 24), _integer(rng, 18, 40)
    _circles(canvas, _whole([centre]), 13, (255, 240, 176), SKY)
    for _ in range(_integer(rng, 1, 4)):
        x, y = _integer(rng, 0, WIDE), _integer(rng, 12, horizon - 34)
        _draw_clump(canvas, x, y, _integer(rng, 18, 30), 9, WHITE_CLOUD, SKY, rng)


def _draw_clouds(canvas, horizon, rng):
    """Fill the canvas with a grey sky."""
    _fill_sky(canvas, (112, 118, 128), (190, 192, 194), horizon)
    for y in np.linspace(-4, horizon - 36, 7).tolist():
        shades = GREY_CLOUD + _integer(rng, -10, 11)
        x, width = _integer(rng, 0, WIDE), _integer(rng, 60, 110)
        _draw_clump(canvas, x, y, width, _integer(rng, 16, 24), shades, SKY, rng)
    canvas[:horizon] = cv2.blur(canvas[:horizon], (11, 11))


def _fill_sky(canvas, top, low, horizon):
    colours = _blend(top, low, np.arange(horizon) * (WIDE / horizon / (WIDE - 1)))
    edge = np.full((horizon, 1, 4), SKY, np.uint8)
    edge[:, 0, :3] = colours
    # One number a pixel, because numpy is slow where the innermost of its loops has four steps.
    canvas[:horizon].view(np.uint32)[:] = edge.view(np.uint32)


def _draw_field(canvas, horizon, rng):
    """Draw two ridges of hills, and the field before them."""
    far, near = _noise(2, 6, 2, WIDE, rng)
    for ridge, height, colour in ((far, 26, (126, 152, 162)), (near, 12, (102, 136, 96))):
        corners = np.empty((WIDE + 2, 2))
        corners[:-2, 0], corners[:-2, 1] = np.arange(WIDE), horizon - height * ridge
        corners[-2:] = (WIDE, WIDE), (0, WIDE)
        _fill(canvas[:horizon], corners, colour, HILLS)
    rows = WIDE - horizon
    speckle = 0.16 * rng.random((rows, WIDE), np.float32)
    light = 0.8 + 0.22 * _noise(9, 4, rows, WIDE, rng) + speckle
    grass = _blend(*MEADOW, np.linspace(0, 1, rows))
    colours = [(channel[:, None] * light).astype(np.uint8) for channel in grass.T]
    cv2.merge([*colours, np.full((rows, WIDE), GRASS, np.uint8)], canvas[horizon:])


def _plan(tank, horizon, rng):
    """List what stands in the field as (y and x of its foot, its width, what draws it)."""
    # Where there is no tank, a bush or a rock takes its place: an empty place would tell.
    y, x = _integer(rng, horizon + 56, WIDE - 12), _integer(rng, 50, WIDE - 50)
    decoy, size = (_draw_rock, 48) if rng.random() < 0.5 else (_draw_bush, 58)
    things = [(y, x, 84, _draw_tank) if tank else (y, x, size, decoy)]
    for _ in range(_integer(rng, 4, 9)):
        draw, size = (_draw_fir, 30) if rng.random() < 0.4 else (_draw_tree, 40)
        foot, place = horizon + _integer(rng, 2, 26), _integer(rng, 0, WIDE)
        things.append((foot, place, size, draw))
    for _ in range(_integer(rng, 4, 9)):
        draw, size = (_draw_rock, 26) if rng.random() < 0.4 else (_draw_bush, 34)
        foot, place = _integer(rng, horizon + 14, WIDE), _integer(rng, 0, WIDE)
        if not (0 <= foot - y < 36 and abs(place - x) < 68):  # nothing hides the tank
            things.append((foot, place, size, draw))
    return things


def _draw_tank(canvas, x, y, width, rng):
    """A tank on its shadow, in camouflage, with some grass before it."""
    way = (-1, 1)[_integer(rng, 0, 2)]

    def at(*points):  # points in widths: forward and up from the middle of the foot
        return [(x + way * width * forward, y - width * up) for forward, up in points]

    hull = at((-0.52, 0.16), (-0.5, 0.27), (0.34, 0.29), (0.53, 0.2), (0.5, 0.14))
    turret = at((-0.28, 0.28), (-0.24, 0.42), (-0.1, 0.46), (0.12, 0.45), (0.25, 0.29))
    _draw_shadow(canvas, x, y, width)
    tracks = at((-0.5, 0.13), (-0.44, 0.2), (0.44, 0.2), (0.52, 0.14), (0.41, 0), (-0.41, 0))
    _fill(canvas, tracks, TRACKS, TANK)
    axles = _whole(at(*((forward, 0.075) for forward in (-0.36, -0.18, 0, 0.18, 0.36))))
    _circles(canvas, axles, 0.065 * width, WHEELS, TANK)
    _circles(canvas, axles, 0.025 * width, TRACKS, TANK)
    _line(canvas, at((0.2, 0.37), (0.72, 0.42)), 0.06 * width, CAMOUFLAGE[0].tolist(), TANK)
    _line(canvas, at((0.66, 0.415), (0.74, 0.425)), 0.09 * width, OUTLINE, TANK)
    _fill(canvas, at((-0.12, 0.44), (-0.11, 0.5), (0.04, 0.5), (0.05, 0.44)), OUTLINE, TANK)
    for plate in (hull, turret):
        _fill_camouflage(canvas, plate, rng)
    blades = rng.uniform((-0.5, -3, 2, 0.8), (0.5, 3, 9, 1.1), (7, 4))
    for place, lean, tall, light in blades.tolist():
        foot = x + width * place
        blade = [(foot, y + 2), (foot + lean, y - tall)]
        _line(canvas, blade, 2, MEADOW[1] * light, GRASS)


def _fill_camouflage(canvas, corners, rng):
    """Fill a plate of the tank with three blotchy colours, dark at its edge."""
    corners = _whole(corners)
    left, top, wide, high = cv2.boundingRect(corners)
    inside = np.zeros((high, wide), np.uint8)
    cv2.fillPoly(inside, [corners - (left, top)], 1)
    crop = np.s_[top : top + high, left : left + wide]
    blotches = np.digitize(_noise(36, 36, WIDE, WIDE, rng)[crop], (0.4, 0.62))
    colours = np.array([(*colour, TANK) for colour in CAMOUFLAGE], np.uint8).view(np.uint32)
    cv2.copyTo(colours[blotches].view(np.uint8), inside, canvas[crop])
    cv2.polylines(canvas, [corners], True, (*OUTLINE, TANK), 1)


def _draw_tree(canvas, x, y, width, rng):
    tall = width * rng.uniform(1.0, 1.5)
    _draw_shadow(canvas, x, y, width)
    _line(canvas, [(x, y), (x, y - 0.6 * tall)], 0.12 * width, (84, 64, 44), TREES)
    leaves = LEAVES * rng.uniform(0.85, 1.2)
    _draw_clump(canvas, x, y - 0.75 * tall, 0.42 * width, 0.4 * width, leaves, TREES, rng)


def _draw_fir(canvas, x, y, width, rng):
    tall = width * rng.uniform(1.6, 2.4)
    _draw_shadow(canvas, x, y, width)
    _line(canvas, [(x, y), (x, y - 0.3 * tall)], 0.12 * width, (74, 56, 40), TREES)
    shade, light = (NEEDLES * rng.uniform(0.85, 1.2)).tolist()
    for low, spread in ((0.12, 0.5), (0.36, 0.4), (0.6, 0.28)):
        foot, tip = y - low * tall, y - min(1, low + 0.45) * tall
        left, right = x - spread * width, x + spread * width
        _fill(canvas, [(left, foot), (right, foot), (x, tip)], shade, TREES)
        _fill(canvas, [(left, foot), (x, foot), (x, tip)], light, TREES)


def _draw_bush(canvas, x, y, width, rng):
    _draw_shadow(canvas, x, y, width)
    leaves = LEAVES * rng.uniform(0.85, 1.2)
    _draw_clump(canvas, x, y - 0.26 * width, 0.42 * width, 0.2 * width, leaves, BUSHES, rng)


def _draw_rock(canvas, x, y, width, rng):
    _draw_shadow(canvas, x, y, width)
    shade, middle, light = (STONE * rng.uniform(0.85, 1.15)).tolist()
    high = rng.uniform(0.5, 0.75) * width * rng.uniform(0.8, 1.1, 8) * np.sin(_ARCH)
    across = x + 0.5 * width * np.cos(_ARCH)
    outline = np.column_stack((across, y - high)).tolist()
    _fill(canvas, outline, middle, ROCKS)
    _fill(canvas, [(x, y), *outline[4:]], shade, ROCKS)
    peak = (x + 0.1 * width, y - 0.4 * high.max())
    _fill(canvas, [*outline[2:6], peak], light, ROCKS)


def _draw_clump(canvas, x, y, width, height, shades, what, rng):
    """A cloud, a crown or a bush: heaped rounds, the lighter ones fewer and further up-left."""
    foot, size = np.array((x, y)), np.array((width, height))
    turns, areas = rng.random((3, 2, 10, 1)).swapaxes(0, 1)
    reach = np.sqrt(areas) * (1 - 0.2 * _STEPS) * size
    angles = 2 * np.pi * turns
    around = reach * np.concatenate((np.cos(angles), np.sin(angles)), -1)
    rounds = _whole(foot - _LEAN * size + around)
    for step, colour in enumerate(shades.tolist()):
        _circles(canvas, rounds[step], height * (0.62 - 0.13 * step), colour, what)


def _draw_shadow(canvas, x, y, width):
    """Darken the ground under something that stands at (x, y)."""
    left, right = max(0, int(x - 0.6 * width)), min(WIDE, int(x + 0.7 * width))
    top, low = max(0, int(y - 0.09 * width)), min(WIDE, int(y + 0.09 * width) + 1)
    across = (np.arange(left - x, right - x) - 0.05 * width) / (0.62 * width)
    down = np.arange(top - y, low - y) / (0.09 * width)
    inside = across**2 + down[:, None] ** 2 < 1
    ground = canvas[top:low, left:right]
    cv2.copyTo(cv2.LUT(ground, _DARKER), inside.view(np.uint8), ground)


def _noise(rows, columns, high, wide, rng):
    """Smooth noise in 0..1: rows x columns random numbers, stretched to (high, wide)."""
    coarse = rng.random((rows, columns), np.float32)
    return cv2.resize(coarse, (wide, high), interpolation=cv2.INTER_LINEAR)


def _blend(start, end, weights):
    """Colours from start to end, (N, 3), at weights (N,) of 0..1."""
    weights = weights[:, None].astype(np.float32)
    return np.float32(start) * (1 - weights) + np.float32(end) * weights


def _integer(rng, low, high):
    """A random number, low to high - 1, as Python's own int: reckoning with numpy's is slow."""
    return int(rng.integers(low, high))


def _whole(points):
    """Points as OpenCV takes them."""
    return np.rint(points).astype(np.int32)


def _fill(canvas, corners, colour, what):
    cv2.fillPoly(canvas, [_whole(corners)], (*colour, what))


def _line(canvas, ends, thick, colour, what):
    cv2.line(canvas, *_whole(ends).tolist(), (*colour, what), max(1, round(thick)))


def _circles(canvas, centres, radius, colour, what):
    # A closed line of one point is as round as it is thick, and one call draws many of them.
    cv2.polylines(canvas, centres[:, np.newaxis], True, (*colour, what), 2 * max(1, round(radius)))
