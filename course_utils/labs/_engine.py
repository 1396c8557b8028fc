"""What the checks of all labs share: to call a student's function, and to tell what is wrong."""

import re
import traceback

import numpy as np


class NotYet(AssertionError):
    """What a check raises: one sentence on what is wrong and where to look."""

    def _render_traceback_(self):
        """What Jupyter shows in place of a traceback, which would lead into the checks."""
        return [f"Not yet: {self}"]


def credit(points, *tries):
    """Run several checks and return the share of `points` that those which pass are worth.

    nbgrader takes the number that a cell ends with for its points. Each of `tries` is a function
    without arguments. Raises NotYet when none of them passes, because nbgrader takes only an error
    for zero points.
    """
    passed, worst = 0, ""
    for attempt in tries:
        try:
            attempt()
            passed += 1
        except NotYet as error:
            worst = worst or str(error)
            print(f"✗ {error}")
    if not passed:
        raise NotYet(worst)
    return points * passed / len(tries)


def well_done(sentence):
    """Print what is now known to be right."""
    print(f"✓ {sentence}")


def call(function, *arguments, **named):
    """Return what a student's function makes of the arguments.

    Raises NotYet if it is not a function, stops with an error (named with the line of the
    student's own code), returns nothing, or changes an array that it was given.
    """
    if not callable(function):
        raise NotYet(f"this should be a function, and it is {_kind(function)}.")
    name = getattr(function, "__name__", "your function")
    before = [np.array(a) if isinstance(a, np.ndarray) else None for a in arguments]
    try:
        result = function(*arguments, **named)
    except NotImplementedError:
        raise NotYet(
            f"{name} still raises NotImplementedError. Put your code in its place, and run the "
            "cell again."
        ) from None
    except Exception as error:
        where = _own_line(error)
        raise NotYet(f"{name} stops with {type(error).__name__}: {error}{where}") from None
    for old, new in zip(before, arguments, strict=True):
        if old is not None and not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
            raise NotYet(f"{name} changes the array it is given. Work on a copy of it.")
    if result is None:
        raise NotYet(f"{name} returns nothing. Does it end with `return`?")
    return result


MAP, IMAGE, TABLE = (-2, -1), (-3, -2), None
"""Which axes of an array are height and width: the last, those before channels, or none."""


def compare(yours, right, *, what, mistakes=None, tolerance=1e-4, axes=MAP):
    """Raise NotYet unless `yours` equals `right`, with a sentence on how it differs.

    Parameters
    ----------
    yours : array, tensor or number
        The student's.
    right : array or number
        The right one, which no sentence gives away.
    what : str
        What to call it, such as "the map".
    mistakes : dict from str to array, optional
        Plausible mistakes: a whole sentence to say, and what one gets by making the mistake.
    tolerance : float
        How far values may lie apart, in units of the largest absolute value of `right`.
    axes : MAP, IMAGE or TABLE
        Which axes are height and width, which the sentences speak of.
    """
    right = np.asarray(right, np.float64)
    yours = as_array(yours, what)
    room = tolerance * max(np.abs(right).max(initial=0), 1e-12)
    if _same(yours, right, room):
        return
    if yours.shape == right.shape and not np.isfinite(yours).all():
        count = np.count_nonzero(~np.isfinite(yours))
        raise NotYet(f"{what} holds NaN or infinity, in {count} of {yours.size} places.")
    for sentence, wrong in (mistakes or {}).items():
        if _same(yours, np.asarray(wrong, np.float64), room):
            raise NotYet(sentence)
    for sentence, wrong in _common_mistakes(right, axes):
        if _same(yours, wrong, room):
            raise NotYet(f"{what} {sentence}")
    if yours.shape != right.shape:
        raise NotYet(f"{what} has shape {yours.shape}, and it should be {right.shape}.")
    raise NotYet(f"{what} {_difference(yours, right, room, axes)}")


def as_array(value, what):
    """Return a student's array, tensor, list or number as float64, or raise NotYet."""
    if value is Ellipsis:
        raise NotYet(f"{what} has no value yet. Put your answer in place of it.")
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise NotYet(f"{what} should hold numbers, and it is {_kind(value)}.") from None


def evidence(value, right, *, what, names, tolerance=0.03):
    """Raise NotYet unless the numbers of an experiment are those that it gives.

    The experiment is that of the student's own guess, so this says whether it was made as agreed,
    and not whether the guess is right. `names` say what each of the numbers `right` is.
    """
    if value is None or value is Ellipsis:
        raise NotYet(f"{what} has no value yet. Put what your experiment gave in place of it.")
    value, right = as_array(value, what), np.asarray(right, np.float64)
    if value.shape != right.shape:
        listed = ", ".join(names)
        number = "one number" if not right.ndim else f"{len(right)} numbers"
        raise NotYet(f"{what} should be {number} ({listed}), and it has shape {value.shape}.")
    for yours, known, name in zip(np.ravel(value), np.ravel(right), names, strict=True):
        if not abs(yours - known) <= tolerance:
            raise NotYet(
                f"{name}: with your answer, the experiment does not give {yours:.3g}. Is it made "
                "as the task says?"
            )
    well_done(
        "The experiment gives your numbers. Whether they speak for your answer, you have to judge: "
        "what is the answer, counts when the lab is graded."
    )


def one_of(value, options, what):
    """Raise NotYet unless `value` is one of the possible answers; it does not tell which one."""
    if value is None or value is Ellipsis:
        raise NotYet(f"{what} has no value yet. Put your answer in place of it.")
    try:
        known = value in options
    except ValueError:  # an array
        known = False
    if not known:
        listed = (
            f"a whole number from {options[0]} to {options[-1]}"
            if isinstance(options, range)
            else "one of " + ", ".join(map(repr, options))
        )
        raise NotYet(f"{what} should be {listed}, and it is {shown(value)}.")


def _same(one, other, room):
    return one.shape == other.shape and bool(np.all(np.abs(one - other) <= room))


def _common_mistakes(right, axes):
    """Sentences, and what `right` becomes by mistakes that are common with maps of all kinds."""
    if axes is TABLE and right.ndim == 2:
        yield "is right but for its axes: rows and columns are swapped.", right.T
        yield "has its rows in the opposite order.", right[::-1]
        yield "has its columns in the opposite order.", right[:, ::-1]
    elif axes is not TABLE and right.ndim >= -axes[0]:
        yield (
            "is right but for its axes: rows and columns are swapped. Height comes before width.",
            np.swapaxes(right, *axes),
        )
        yield "is upside down.", np.flip(right, axes[0])
        yield "is mirrored from left to right.", np.flip(right, axes[1])
    if axes == IMAGE and right.ndim >= 3 and right.shape[-1] > 1:
        yield "is right but for its channels, which are in the opposite order.", right[..., ::-1]
    if right.ndim == 3 and len(right) == 1:
        yield "has lost its batch axis: it should be one map per image.", right[0]
    if right.ndim >= 1:
        yield "has a batch axis too many.", right[np.newaxis]
    if right.ndim == 1:
        yield "has its values in the opposite order.", right[::-1]
    if (right < 0).any():
        yield "has the opposite sign.", -right
        yield "has lost its signs, and the signs mean something here.", np.abs(right)
        yield "has lost its negative values, and they mean something here.", np.maximum(right, 0)
    elif (right > 0).any():
        yield "has the opposite sign.", -right


def _difference(yours, right, room, axes):
    """How an array of the right shape differs, as the rest of a sentence."""
    if right.ndim == 0:
        return f"is {yours:.6g}, which is not right."
    if np.ptp(yours) == 0:
        return "is the same everywhere, and it should not be."
    moved = _moved_by(yours, right, room, axes)
    if moved:
        return f"is right but lies {moved}. Look at where your indices begin."
    if right.size > 2 and np.ptp(right) > 0:
        slope, offset = np.polyfit(right.ravel(), yours.ravel(), 1)
        if np.abs(slope * right + offset - yours).max() <= 10 * room * max(abs(slope), 1e-9):
            if abs(offset) <= 10 * room * abs(slope):
                return (
                    "is right but for a factor: every value is the same multiple of what it "
                    "should be. Is a mean taken for a sum, or is it divided by its maximum?"
                )
            return "is right but for its scale: something is added to it, or it is normalised."
    off = np.abs(yours - right) > room
    share = off.mean()
    places = f"{min(1 - share, 0.99):.0%} of its places"  # never all of them
    if axes is not TABLE and right.ndim >= -axes[0] and share < 0.5:
        off = np.moveaxis(off, axes, MAP)
        rows, columns = np.nonzero(off.reshape(-1, *off.shape[-2:]).any(0))
        return (
            f"is right in {places}. The wrong ones lie in rows {rows.min()} "
            f"to {rows.max()} and columns {columns.min()} to {columns.max()}."
        )
    if share < 0.5:
        first = ", ".join(map(str, np.argwhere(off)[0]))
        return f"is right in {places}. The first wrong one is [{first}]."
    flat, true = yours.ravel(), right.ravel()
    if np.std(flat) > 0 and np.std(true) > 0 and np.corrcoef(flat, true)[0, 1] > 0.9:
        return "has nearly the right pattern (correlation above .9), but not the right values."
    return "is not right yet: its values differ from the definition's in most places."


def _moved_by(yours, right, room, axes):
    """Where `yours` lies if it is `right`, moved by one or two places: words, or None."""
    if axes is TABLE or right.ndim < -axes[0] or min(right.shape[axis] for axis in axes) < 5:
        return None
    for distance in (1, 2):
        for axis, (ahead_of, behind) in zip(
            axes, (("down", "up"), ("to the right", "to the left")), strict=True
        ):
            near = np.take(yours, range(distance, right.shape[axis]), axis)
            far = np.take(right, range(right.shape[axis] - distance), axis)
            back = np.take(yours, range(right.shape[axis] - distance), axis)
            ahead = np.take(right, range(distance, right.shape[axis]), axis)
            places = f"{distance} place{'s' if distance > 1 else ''}"
            if np.ptp(far) > 0 and _same(near, far, room):
                return f"{places} too far {ahead_of}"
            if np.ptp(ahead) > 0 and _same(back, ahead, room):
                return f"{places} too far {behind}"
    return None


def _own_line(error):
    """The line of the student's own code at which an error came up, or nothing."""
    if hasattr(error, "own_line"):  # it came from another process, which has told the line
        return error.own_line
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f for f in frames if "course_utils" not in f.filename and "site-packages" not in f.filename
    ]
    if not own or not own[-1].line:
        return ""
    return f" (line {own[-1].lineno} of its cell: {own[-1].line})"


def _kind(value):
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    kind = type(value.item()) if isinstance(value, np.generic) else type(value)
    return f"{kind.__name__} {shown(value)}"[:80]


def shown(value):
    """A value as one would write it: 3, where numpy writes np.int64(3)."""
    return re.sub(r"\bnp\.\w+\(([^()]*)\)", r"\1", repr(value))
