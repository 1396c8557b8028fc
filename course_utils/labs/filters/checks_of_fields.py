"""Checks of the lab on filters: how large a map is, and which pixels a unit of it can see."""

import numpy as np

from course_utils.labs._engine import NotYet, as_array, call, well_done


def output_size(function, *, seed=0, padding="valid"):
    """``function(n, kernel, stride, dilation, padding)`` says how many units a layer has."""
    rng = np.random.default_rng(seed)
    cases = [
        (12, 3, 2, 1),
        (13, 3, 2, 1),
        (20, 3, 1, 3),
        (9, 2, 5, 1),
        (16, 4, 1, 2),
        (11, 1, 4, 1),
    ]
    cases += [tuple(map(int, rng.integers((14, 1, 1, 1), (40, 5, 6, 3)))) for _ in range(4)]
    found = [as_array(call(function, *case, padding), "the size") for case in cases]
    for size in found:
        if size.shape != ():
            raise NotYet(f"the size should be one number, and it has shape {size.shape}.")
    mistakes = _VALID_MISTAKES if padding == "valid" else _SAME_MISTAKES
    # A window begins at each of these places.
    ends = [n if padding == "same" else n - d * (k - 1) for n, k, _, d in cases]
    right = [len(range(0, end, case[2])) for end, case in zip(ends, cases, strict=True)]
    wrong = next((i for i, size in enumerate(found) if size != right[i]), None)
    if wrong is None:
        well_done(f"your sizes are right for {len(cases)} layers with padding={padding!r}.")
        return
    if any(size != np.round(size) for size in found):
        raise NotYet("the size should be a whole number, also where the stride leaves a rest.")
    n, kernel, stride, dilation = cases[wrong]
    said = (
        f"not right for {n} pixels, a window of {kernel}, stride {stride} and dilation {dilation}"
    )
    hint = _that_fits(found, cases, mistakes) or f"yours is {found[wrong]:g}."
    raise NotYet(f"{said}, padding {padding!r}: {hint}")


def _that_fits(found, cases, mistakes):
    """The sentence whose mistake gives what was found in every case, or None."""
    for sentence, mistake in mistakes.items():
        if all(np.array_equal(f, mistake(*c)) for f, c in zip(found, cases, strict=True)):
            return sentence
    return None


_VALID_MISTAKES = {
    "the first place is not counted: a window that fits once still makes one unit.": (
        lambda n, k, s, d: (n - d * (k - 1) - 1) // s
    ),
    "a window that sticks out at the end is counted; without padding it is left out.": (
        lambda n, k, s, d: -(-(n - d * (k - 1) - 1) // s) + 1
    ),
    "dilation is missing: how many pixels is it from the first to the last that the window looks "
    "at?": lambda n, k, s, d: (n - k) // s + 1,
    "a dilated window reaches over fewer than kernel times dilation pixels: after its last weight "
    "there is no gap.": lambda n, k, s, d: (n - k * d) // s + 1,
    "the stride is missing.": lambda n, k, s, d: n - d * (k - 1),
    "these are the sizes with padding.": lambda n, k, s, d: -(-n // s),
}
_SAME_MISTAKES = {
    "the last place is missing: with padding a window stands wherever a stride begins, also in "
    "what is left over at the end.": lambda n, k, s, d: n // s,
    "with padding, too, the stride thins the units out.": lambda n, k, s, d: n,
    "these are the sizes without padding.": lambda n, k, s, d: (n - d * (k - 1) - 1) // s + 1,
}


def field(function, *, seed=0):
    """``function(chain)`` gives the size, jump and start of what the last layer's units see."""
    rng = np.random.default_rng(seed)
    chains = [
        [(3, 1, 1, 0)],
        [(3, 2, 1, 0), (3, 1, 1, 0)],
        [(3, 1, 1, 0), (3, 1, 4, 0)],
        [(3, 1, 1, 1), (2, 2, 1, 0), (3, 1, 1, 1)],
    ] + [_random_chain(rng) for _ in range(4)]
    found = [as_array(call(function, list(chain)), "the answer") for chain in chains]
    for answer in found:
        if answer.shape != (3,):
            raise NotYet(
                f"return three numbers, size, jump and start; yours has shape {answer.shape}."
            )
    for chain, answer in zip(chains, found, strict=True):
        right = _field(chain)
        for place, name in enumerate(("size", "jump", "start")):
            if answer[place] != right[place]:
                mistakes = {
                    hint: lambda chain, mistake=mistake: _field(chain, mistake)
                    for mistake, hint in _FIELD_MISTAKES.items()
                }
                hint = _that_fits(found, [(c,) for c in chains], mistakes)
                hint = hint or f"the {name} is not right: yours is {answer[place]:g}."
                raise NotYet(f"for the chain {chain}, {hint}")
    well_done("size, jump and start are right for eight chains, dilated and padded ones included.")


_FIELD_MISTAKES = {
    "no dilation": "dilation is not taken into account: it spreads the window of its layer.",
    "k times d": "a dilated window reaches too far: after its last weight there is no gap.",
    "jump too soon": "the jump grows before the size does. A layer's window counts units of the "
    "layer below, and these are as far apart as the jump was before.",
    "no jump": "each layer's window is taken for pixels. It counts units of the layer below, and "
    "these lie one jump apart.",
    "padding in pixels": "the start counts padding in pixels. A layer pads the map below it, whose "
    "units lie one jump apart.",
    "padding ahead": "the start has the wrong sign: padding lies before the first pixel.",
}


def _field(chain, mistake=None):
    """Size, jump and start; or what one gets by a mistake."""
    size, jump, start = 1, 1, 0
    for kernel, stride, dilation, pad in chain:
        reach = dilation * (kernel - 1)
        if mistake == "no dilation":
            reach = kernel - 1
        if mistake == "k times d":
            reach = kernel * dilation - 1
        step = {"jump too soon": jump * stride, "no jump": 1}.get(mistake, jump)
        size += reach * step
        before = -pad * (1 if mistake == "padding in pixels" else jump)
        start += -before if mistake == "padding ahead" else before
        jump *= stride
    return size, jump, start


def _random_chain(rng, length=3):
    """Layers (kernel, stride, dilation, zeros before): fewer zeros than a window reaches over."""
    layers_of = [tuple(map(int, rng.integers((2, 1, 1, 0), (5, 4, 4, 3)))) for _ in range(length)]
    return [(k, s, d, min(p, d * (k - 1))) for k, s, d, p in layers_of]


def pixels_seen(function, *, seed=0):
    """``function(chain, unit)`` lists the pixels of a row that a unit sees."""
    rng = np.random.default_rng(seed)
    cases = [
        ([(3, 1, 1, 0)], 2),
        ([(3, 1, 3, 0)], 1),
        ([(2, 5, 1, 0)], 1),
        ([(3, 1, 1, 1), (3, 1, 2, 0)], 0),
        ([(2, 3, 1, 0), (3, 1, 2, 0)], 1),
        ([(3, 1, 4, 0), (3, 1, 1, 1)], 0),  # a zero in the middle of the chain sees nothing
    ] + [(_random_chain(rng), int(rng.integers(0, 4))) for _ in range(6)]
    found = [as_array(call(function, list(chain), unit), "the list") for chain, unit in cases]
    for places in found:
        if places.ndim != 1:
            raise NotYet(f"the list should have one axis, and it has shape {places.shape}.")
    for (chain, unit), places in zip(cases, found, strict=True):
        right = _seen(chain, unit)
        if np.array_equal(places, right):
            continue
        case = f"unit {unit} of the chain {chain}"
        hint = _that_fits(found, cases, _SEEN_MISTAKES)
        if (places < 0).any():
            hint = "your list has negative places. They are padding, not pixels."
        elif len(np.unique(places)) < len(places):
            hint = "a pixel is listed twice. Two paths may lead to the same one."
        elif np.array_equal(np.sort(places), right):
            hint = "the right pixels, in another order. Sort them."
        raise NotYet(f"{case}: {hint or f'not right. Your list has {len(places)} pixels.'}")
    well_done(f"{len(cases)} units see the pixels that you say, gaps included.")


def _seen(chain, unit, through_zeros=False):
    places = np.array([unit])
    for kernel, stride, dilation, zeros in reversed(chain):
        steps = dilation * np.arange(kernel) - zeros
        places = np.unique(places[:, np.newaxis] * stride + steps)
        if not through_zeros:
            places = places[places >= 0]
    return places[places >= 0]


def _all_between(chain, unit):
    places = _seen(chain, unit)
    return np.arange(places.min(), places.max() + 1)


_SEEN_MISTAKES = {
    "these are the pixels of unit 0. Where does this unit begin?": lambda c, u: _seen(c, 0),
    "the layers are taken in the wrong order. The unit belongs to the last one; go back from there "
    "to the image.": lambda c, u: _seen(c[::-1], u),
    "dilation is not taken into account.": (
        lambda c, u: _seen([(k, s, 1, z) for k, s, _, z in c], u)
    ),
    "the stride is not taken into account.": (
        lambda c, u: _seen([(k, 1, d, z) for k, _, d, z in c], u)
    ),
    "the zeros before the first unit are not taken into account.": (
        lambda c, u: _seen([(k, s, d, 0) for k, s, d, _ in c], u)
    ),
    "a zero that pads a map between two layers is followed down to the image. It is a zero, and "
    "sees nothing: drop negative places at every layer.": lambda c, u: _seen(c, u, True),
    "your list has no gaps. A dilated window, and a stride that is wider than what lies below it, "
    "leave pixels out.": _all_between,
}
