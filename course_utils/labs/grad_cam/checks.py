"""Checks of the lab on class activation maps, Grad-CAM and attacks on explanations."""

import functools
import warnings

import numpy as np

from course_utils import labs
from course_utils._scores import predict
from course_utils.attack import randomize_layers
from course_utils.labs._engine import (
    IMAGE,
    NotYet,
    as_array,
    call,
    compare,
    evidence,
    one_of,
    well_done,
)
from course_utils.metrics import rank_correlation


def contributions(function, *, seed=0):
    """Check task 1, `contributions(maps, weights, bias, target)`."""
    rng = np.random.default_rng(seed)
    for n, height, width, count, classes in ((2, 3, 5, 4, 3), (1, 4, 2, 6, 5)):
        maps = rng.normal(size=(n, height, width, count))
        weights, bias = rng.normal(size=(count, classes)), rng.normal(size=classes)
        target = int(rng.integers(classes))
        cam = maps @ weights[:, target]
        cells = height * width
        right = (cam + bias[target]) / cells
        yours = call(function, maps, weights, bias, target)
        compare(
            yours,
            right,
            what="the contributions",
            mistakes={
                "this is the class activation map: its mean is the logit less its bias, and the "
                "contributions should add up to the logit.": cam,
                "the contributions lack the bias: they add up to the logit without it. Share it "
                "out evenly.": cam / cells,
                "every cell gets the whole bias. All cells together should get it once.": cam
                / cells
                + bias[target],
                "the mean of the contributions is the logit, and their sum should be.": cam
                + bias[target],
                "the contributions are those of all images together. Each image has its own.": (
                    right.mean(0) if n > 1 else np.inf
                ),
                "the contributions have lost their negative values. A cell can speak against a "
                "class.": np.maximum(right, 0),
            },
        )
    well_done("the contributions of the cells add up to the logit, bias included.")


def grad_cam_maps(function, *, seed=0):
    """Check task 2, `grad_cam_maps(maps, gradients)`, where something speaks for the target."""
    rng = np.random.default_rng(seed)
    for n, shape in ((3, (4, 6, 5)), (1, (5, 3, 2))):
        maps, gradients = _speaking(rng, n, shape)
        cam = _weighted(maps, gradients)
        right = _divided(np.maximum(cam, 0))
        places = (maps * gradients).sum(-1)
        yours = call(function, maps, gradients)
        compare(
            yours,
            right,
            what="the maps",
            mistakes={
                "each place has its own weight. Grad-CAM gives each feature map one weight, the "
                "mean of its gradient over places.": _divided(np.maximum(places, 0)),
                "the maps are not divided by their maximum.": np.maximum(cam, 0),
                "all maps are divided by one number. Divide each by its own maximum.": np.maximum(
                    cam, 0
                )
                / cam.max()
                if n > 1
                else np.inf,
                "the negative values are still there. They become zero.": cam
                / cam.max(axis=(1, 2), keepdims=True),
                "the weights have lost their signs. A feature map can speak against the target.": (
                    _divided(np.maximum(_weighted(maps, np.abs(gradients)), 0))
                ),
                "each feature map is cut off at zero before the sum. Cut the sum off.": _divided(
                    np.maximum(maps * gradients.mean((1, 2), keepdims=True), 0).sum(-1)
                ),
                "the negative values have become positive. They become zero.": _divided(
                    np.abs(cam)
                ),
                "the weights are means over the images, too. Each image has its own weights.": (
                    _divided(np.maximum(maps @ gradients.mean((0, 1, 2)), 0)) if n > 1 else np.inf
                ),
            },
        )
    well_done("grad_cam_maps weighs the feature maps, cuts off and divides as it should.")


def grad_cam_of_nothing(function, *, seed=0):
    """Check task 2 on images of which nothing speaks for the target."""
    rng = np.random.default_rng(seed)
    maps, gradients = _speaking(rng, 3, (4, 6, 5))
    gradients[1] = -np.abs(gradients[1])
    maps[1] = np.abs(maps[1])
    right = _divided(np.maximum(_weighted(maps, gradients), 0))
    yours = as_array(_quietly(function, maps, gradients), "the maps")
    if yours.shape == right.shape and not np.isfinite(yours[1]).all():
        raise NotYet(
            "where nothing speaks for the target, the maximum is 0 and the map becomes NaN. It "
            "should be zero everywhere."
        )
    compare(yours, right, what="the maps")
    well_done("where nothing speaks for the target, the map is zero.")


def _quietly(function, *arguments):
    """Call a function and take a warning for what it is: a division that should not happen."""
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("ignore")
        return call(function, *arguments)


def _speaking(rng, n, shape):
    """Feature maps and gradients of which something speaks for the target in every image."""
    while True:
        maps = np.maximum(rng.normal(size=(n, *shape)), 0)
        gradients = rng.normal(size=(n, *shape)) + rng.normal(size=(n, 1, 1, shape[-1]))
        cam = _weighted(maps, gradients)
        if (cam.max((1, 2)) > 0.1).all() and (cam.min((1, 2)) < -0.1).all():
            return maps, gradients


def _weighted(maps, gradients):
    return (maps * gradients.mean((1, 2), keepdims=True)).sum(-1)


def _divided(maps):
    largest = maps.max(axis=(-2, -1), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)


def for_and_against(function, *, seed=0):
    """Check task 3, `for_and_against(maps, gradients)`."""
    rng = np.random.default_rng(seed)
    for n, shape in ((3, (4, 6, 5)), (2, (5, 3, 2))):
        maps, gradients = _speaking(rng, n, shape)
        if n == 3:
            gradients[1] = 0
        cam = _weighted(maps, gradients)
        two = np.stack([np.maximum(cam, 0), np.maximum(-cam, 0)])
        largest = two.max(axis=(0, 2, 3))[:, None, None]
        right = np.divide(two, largest, out=np.zeros_like(two), where=largest > 0)
        yours = as_array(_quietly(function, maps, gradients), "the pair of maps")
        if yours.shape == right.shape and n == 3 and not np.isfinite(yours[:, 1]).all():
            raise NotYet(
                "where the gradient is zero, both maps should be zero, and yours hold NaN."
            )
        negative = np.maximum(_weighted(maps, -np.maximum(-gradients, 0)), 0)
        compare(
            yours,
            right,
            what="the pair of maps",
            mistakes={
                "each of the two maps is divided by its own maximum, so that the weaker looks as "
                "strong as the other. Divide both by the larger of the two.": _divided(two),
                "the maps of all images are divided by one number. Each image has its own.": two
                / two.max(),
                "the maps are not divided by anything.": two,
                "the first map should be for the target, the second against it.": right[::-1],
                "what speaks against should be positive in its own map: how strongly it does.": (
                    right * np.array([1, -1])[:, None, None, None]
                ),
                "the second map holds what speaks for the target as well. It should be that of "
                "the opposite weights, cut off at zero.": np.stack(
                    [right[0], _divided(np.abs(cam))]
                ),
                "only the negative parts of the gradient count in the second map. Take the mean "
                "first, then its opposite.": np.stack([right[0], negative]),
                "the images come first. The pair comes first: (2, N, height, width).": np.swapaxes(
                    right, 0, 1
                ),
            },
        )
    well_done("for_and_against puts both maps on one scale.")


def cell_centres(function, *, seed=0):
    """Check task 4, `cell_to_pixel(cell, grid, size, corners=False)`."""
    _cell_to_pixel(function, seed, False)
    well_done("cells that cover squares of pixels lie where they should.")


def cell_corners(function, *, seed=0):
    """Check task 4, `cell_to_pixel(cell, grid, size, corners=True)`."""
    _cell_to_pixel(function, seed, True)
    well_done("cells stretched from corner to corner lie where they should.")


def _cell_to_pixel(function, seed, corners):
    rng = np.random.default_rng(seed)
    for grid, size in (((8, 16), (32, 64)), ((7, 5), (224, 90)), ((3, 4), (10, 30))):
        inner = tuple(int(rng.integers(1, count - 1)) for count in grid)
        cells = [(1, 1), inner, (0, 0), (grid[0] - 1, grid[1] - 1)]
        for cell in cells:
            cell_, grid_, size_ = (np.array(x, float) for x in (cell, grid, size))
            centre = (cell_ + 0.5) * size_ / grid_ - 0.5
            corner = cell_ * (size_ - 1) / (grid_ - 1)
            right, other = (corner, centre) if corners else (centre, corner)
            yours = call(function, cell, grid, size, corners)
            compare(
                yours,
                right,
                what=f"the place of cell {cell} of {grid} in {size} pixels",
                mistakes=_places(cell_, grid_, size_, corners)
                | {
                    "corners is taken the wrong way round: with it the first and the last cell "
                    "lie on the first and the last pixel.": other,
                    "row and column are swapped. The row comes first.": right[::-1],
                },
                tolerance=1e-6,
            )


def _places(cell, grid, size, corners):
    """Where a cell is put by mistake: sentences and places."""
    if corners:
        return {
            "the last pixel is number size − 1, and yours goes on to size.": cell
            * size
            / (grid - 1)
        }
    return {
        "this takes the first pixel's upper left corner for 0. The middle of the first pixel is 0, "
        "so all is off by half a pixel.": (cell + 0.5) * size / grid,
        "this is the upper left corner of the cell's square. Take its middle.": cell * size / grid
        - 0.5,
        "this is the first pixel of the cell's square. Take the square's middle.": cell
        * size
        / grid,
    }


class _Terrain:
    """A gradient with zeros, and classes that change when an image goes too far along it."""

    def __init__(self, shape, rng, limit):
        self.slopes = rng.normal(size=shape) * (rng.random(shape) > 0.2)
        self.limit = limit  # how far to go before the class changes
        self.start = None

    def gradient(self, images):
        images = np.asarray(images, np.float64)
        self._check(images)
        return np.broadcast_to(self.slopes, images.shape) * (1 + images.mean())

    def classify(self, images):
        images = np.asarray(images, np.float64)
        self._check(images)
        gone = np.abs(images - self.start).max((1, 2, 3))
        return np.where(gone > self.limit, 1, 3)

    def _check(self, images):
        if images.ndim != 4 or images.shape[1:] != self.slopes.shape:
            shape = ", ".join(map(str, self.slopes.shape))
            raise ValueError(f"images must be (N, {shape}), got {images.shape}")


def nudge_step(function, *, seed=0):
    """Check task 5, `nudge(gradient, classify, image, epsilon)`, where no class changes."""
    _nudge(function, seed, [np.inf])
    well_done("nudge takes one step by the signs of the gradient, within all bounds.")


def nudge_class(function, *, seed=0):
    """Check task 5 where a whole step would change the class."""
    _nudge(function, seed, [0.7, 0.3, 0.26, 0.02, 0.009, 0.0])
    well_done("nudge takes a shorter step where a longer one would change the class.")


def _nudge(function, seed, limits):
    rng = np.random.default_rng(seed)
    for limit in limits:
        for shape, epsilon in (((4, 6, 1), 0.1), ((3, 5, 3), 0.04)):
            ground = _Terrain(shape, rng, limit * epsilon)
            image = rng.random(shape)
            image.flat[:3] = 0, 1, 0.5  # so that the range has to be kept, and a step is seen
            ground.slopes.flat[:3] = -1, 1, 2
            ground.start = image
            steps = [epsilon / 2**k for k in range(7)]
            fit = [step for step in steps if step <= limit * epsilon]
            right = _step(image, ground.slopes, fit[0]) if fit else image
            yours = call(function, ground.gradient, ground.classify, image, epsilon)
            mistakes = _mistakes(ground, image, steps, fit)
            compare(yours, right, what="the image", mistakes=mistakes, axes=IMAGE)


def _step(image, slopes, length):
    return np.clip(image + length * np.sign(slopes), 0, 1)


def _mistakes(ground, image, steps, fit):
    """What a student who errs gets for the nudged image."""
    slopes, length = ground.slopes, fit[0] if fit else 0
    shorter = fit[1] if len(fit) > 1 else 0
    full = _step(image, slopes, steps[0])
    mistakes = {
        "the step goes down the gradient, and it should go up.": _step(image, -slopes, length),
        "the image leaves the range 0 to 1.": image + length * np.sign(slopes),
        "the step is as long as the gradient at each pixel. Go by its sign alone.": np.clip(
            image + length * slopes, 0, 1
        ),
        "values whose gradient is 0 move, too. The sign of 0 is 0.": np.clip(
            image + length * np.where(slopes > 0, 1, -1), 0, 1
        ),
        "this is the change alone. Return the changed image.": length * np.sign(slopes),
    }
    if not fit:
        return {
            "no step that was tried leaves the class alone, and the image is changed all the "
            "same.": _step(image, slopes, steps[-1]),
            "the class has changed.": full,
            "a step shorter than a 64th was taken, and seven were to be tried.": _step(
                image, slopes, steps[-1] / 2
            ),
        }
    if fit[0] < steps[0]:
        mistakes |= {
            "the class has changed. Halve the step until it does not.": full,
            "a whole step changes the class, but a shorter one does not. Halve it.": image,
        }
    if fit[0] < steps[0] and shorter:
        mistakes |= {
            "the step is halved once more after the class was the same again.": _step(
                image, slopes, shorter
            ),
        }
    return mistakes


def likeness(value, name):
    """Check how alike the maps of trained and random layers are, whatever the explainer."""
    one_of(name, tuple(labs.TICKET_EXPLAINERS), "deaf")
    tickets, explain = labs.load_tickets(), labs.TICKET_EXPLAINERS[name]
    network = _network("quartz")
    some = tickets.images[:20], tickets.shelves[:20]
    nets = network, randomize_layers(network, top=4, seed=0)
    alike = np.nanmean(rank_correlation(*(explain(net, *some) for net in nets)))
    evidence(value, alike, what="likeness", names=["the mean rank correlation"])


def experiment(value, network, shelf):
    """Check the two shares of an experiment, whatever the answer that it is made for.

    How many of the shelf's tickets are still read as it, with the half of the shelf in black and
    with that of the coat.
    """
    _check_suspect(network, shelf)
    tickets = labs.load_tickets()
    own = tickets.shelves == shelf
    halves = tickets.shelf_masks[own][..., np.newaxis]
    covered = [np.where(half, 0, tickets.images[own]) for half in (halves, ~halves)]
    stay = [np.mean(predict(_network(network), x, 64).argmax(1) == shelf) for x in covered]
    names = ["the share with the shelf's half in black", "the share with the coat's half in black"]
    evidence(value, stay, what="experiment", names=names)


def deaf(name, *, seed=0):
    """Check task 6 by an experiment: all layers of a network become random."""
    one_of(name, tuple(labs.TICKET_EXPLAINERS), "deaf")
    tickets, explain = labs.load_tickets(), labs.TICKET_EXPLAINERS[name]
    network = _network("quartz")
    some, shelves = tickets.images[:20], tickets.shelves[:20]
    before, alike = explain(network, some, shelves), []
    for k in range(3):
        other = randomize_layers(network, top=4, seed=3 * seed + k)
        # A map of zeros has no order, and so no correlation: NaN.
        alike.append(np.nanmean(rank_correlation(before, explain(other, some, shelves))))
    told = (
        f"with all layers made random, three times, the maps of {name} keep a rank correlation of "
        f"{np.mean(alike):.2f} with those of the trained network"
    )
    if np.mean(alike) < 0.95:
        raise NotYet(f"{told}. So they do depend on what it has learned.")
    well_done(f"{told}.")


def _network(name):
    return _of_variant(name, labs.variant())


@functools.cache
def _of_variant(name, variant):
    return labs.load_tickets_network(name)


def suspect(network, shelf, *, seed=0, most=0.6):
    """Check task 7 by an experiment: the shelf's digit is taken away from its tickets."""
    _check_suspect(network, shelf)
    tickets, rng = labs.load_tickets(), np.random.default_rng(seed)
    own, others = (np.flatnonzero((tickets.shelves == shelf) == is_it) for is_it in (True, False))
    changed = _paste(tickets, own, rng.choice(others, len(own)), "shelf")
    stay = (predict(_network(network), changed, 64).argmax(1) == shelf).mean()
    told = (
        f"when the digit of shelf {shelf} is exchanged for another shelf's on all its tickets, "
        f"{network} still says {shelf} for {stay:.0%} of them"
    )
    if stay < most:
        raise NotYet(f"{told}. So for that shelf it does look at the digit of the shelf.")
    well_done(f"{told}.")


def companion(network, shelf, coat, *, seed=0, least=0.6):
    """Check task 7 by an experiment: the coat's digit is put on tickets of other shelves."""
    _check_suspect(network, shelf)
    one_of(coat, range(5, 10), "coat")
    tickets, rng = labs.load_tickets(), np.random.default_rng(seed)
    others = np.flatnonzero((tickets.shelves != shelf) & (tickets.coats != coat))
    givers = np.flatnonzero(tickets.coats == coat)
    changed = _paste(tickets, others, rng.choice(givers, len(others)), "coat")
    become = (predict(_network(network), changed, 64).argmax(1) == shelf).mean()
    told = (
        f"when a coat {coat} is put on tickets of other shelves, {network} says shelf {shelf} for "
        f"{become:.0%} of them"
    )
    if become < least:
        raise NotYet(f"{told}. So that coat does not mean that shelf to it.")
    well_done(f"{told}.")


def _check_suspect(network, shelf):
    one_of(network, labs.TICKET_NETWORKS, "suspect")
    one_of(shelf, range(5), "shelf_in_question")


def _paste(tickets, into, givers, what):
    """Copies of tickets with the half that shows `what` taken from other tickets."""
    changed = tickets.images[into].copy()
    for image, i, giver in zip(changed, into, givers, strict=True):
        here, there = (tickets.shelf_masks[k] == (what == "shelf") for k in (i, giver))
        image[here] = tickets.images[giver][there]
    return changed
