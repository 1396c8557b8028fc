"""Variants of the labs: what is planted, and where, differs from class to class.

A variant is a number. `make labs` writes it into the notebooks that it makes, and grading into
those that it runs. What it changes is drawn from it: which of a small family of trained networks is
loaded, and transformations of one network and its data that leave every answer as it was.
"""

import zlib

import numpy as np

_chosen = [0]


def variant(number=None):
    """Choose the variant of all labs that is loaded from here on; returns its number.

    Parameters
    ----------
    number : int, optional
        0 is the course's own. Without it, nothing is changed.
    """
    if number is not None:
        if isinstance(number, bool) or number != int(number) or number < 0:
            raise ValueError(f"a variant is a whole number from 0 on, got {number!r}.")
        _chosen[0] = int(number)
    return _chosen[0]


def member(count):
    """Which of a family of `count` networks this variant has; variants side by side differ."""
    return variant() % count


def file_of(name, number):
    """The file of weights of a member of a family; member 0 has no number.

    Trained by the lab's script in ``data/build``, which names them alike.
    """
    return f"{name}_{number}_weights.npz" if number else f"{name}_weights.npz"


def order(what, count):
    """An order of `count` things, int (count,); in variant 0, the one they are in.

    Of up to five things, each has another place than in the variants side by side with this one.
    """
    if count > 5:
        rng = np.random.default_rng([zlib.crc32(what.encode()), variant()])
        return rng.permutation(count) if variant() else np.arange(count)
    return (np.arange(count) + variant() + (variant() // count if count > 2 else 0)) % count
