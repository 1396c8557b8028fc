"""What passes between a student's process and the judge's: values, and calls of functions.

The judge (judge.py) holds the checks and the keys, the student's process the student's functions.
A function that one side hands over can be called by the other, at either end of a socket; arrays,
tensors and small networks travel by value, as numbers and never as code. What the judge gets is
read as numbers, texts and lists of them; of anything else it learns the type and the first letters.
"""

import builtins
import io
import json
import os
import socket
import struct
import sys
import traceback

import numpy as np

LONGEST = 2**28  # bytes of a message
DEEPEST = 20  # lists within lists
TEXT = 5000  # characters of an error


class Gone(ConnectionError):
    """The other side has ended, or says what makes no sense."""


class Other:
    """A value that did not travel: its type and its first letters did."""

    def __init__(self, told):
        self.told = told

    def __repr__(self):
        return self.told


class Peer:
    """One end of a socket: calls functions of the other side, and answers its calls.

    `names` are the values that the other side may ask for by name; `networks` says whether a
    network that comes in is built.
    """

    def __init__(self, end, names=(), *, networks=False):
        self.socket, self.names, self.networks = end, dict(names), networks
        self.functions, self.lost = [], False

    # ------------------------------------------------------------------- messages

    def send(self, kind, *values):
        """Send a message: its kind, and values."""
        parts = []
        text = json.dumps([kind, [self.encode(value, parts) for value in values]])
        head = json.dumps([len(part) for part in parts]).encode()
        text = text.encode("utf-8", "replace")
        sizes = struct.pack(">QQ", len(head), len(text))
        self.socket.sendall(b"".join([sizes, head, text, *parts]))

    def receive(self):
        """The next message: its kind, and a list of values."""
        try:
            head, text = struct.unpack(">QQ", self.read(16))
            sizes = json.loads(self.read(head))
            if not all(type(size) is int and size >= 0 for size in sizes):
                raise ValueError("sizes")
            kind, values = json.loads(self.read(text))
            if sum(sizes) > LONGEST:
                raise ValueError("too long")
            parts = [self.read(size) for size in sizes]
            return kind, [self.decode(value, parts) for value in values]
        except (ValueError, TypeError, LookupError, OSError, RecursionError, MemoryError) as error:
            self.lost = True  # and what else comes makes no sense
            raise Gone(f"a message that cannot be read ({type(error).__name__})") from None

    def read(self, size):
        """So many bytes."""
        if self.lost:
            raise ValueError("lost")
        if size > LONGEST:
            raise ValueError("too long")
        got = bytearray()
        while len(got) < size:
            more = self.socket.recv(min(size - len(got), 2**20))
            if not more:
                raise OSError("the other side has ended")
            got += more
        return bytes(got)

    # ------------------------------------------------------------------- values

    def encode(self, value, parts, depth=0):
        """A value as JSON can say it; arrays are added to `parts`."""
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if value is Ellipsis:
            return ["..."]
        if kind is range:
            return ["range", value.start, value.stop, value.step]
        if isinstance(value, list | tuple | set | frozenset) and depth < DEEPEST:
            name = "list" if isinstance(value, list) else "tuple"
            return [name, [self.encode(each, parts, depth + 1) for each in value]]
        if isinstance(value, dict) and depth < DEEPEST:
            pairs = [[self.encode(v, parts, depth + 1) for v in pair] for pair in value.items()]
            return ["dict", pairs]
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiubcUS":
            return ["array" if isinstance(value, np.ndarray) else "scalar", add(value, parts)]
        if kind.__module__.startswith("tensorflow") and hasattr(value, "numpy"):
            return ["tensor", add(np.asarray(value.numpy()), parts)]
        if hasattr(value, "to_json") and hasattr(value, "get_weights"):
            weights = [add(weight, parts) for weight in value.get_weights()]
            return ["network", value.to_json(), weights]
        if callable(value):
            self.functions.append(value)
            name = str(getattr(value, "__name__", "your function"))[:80]
            return ["function", len(self.functions) - 1, name]
        return ["other", kind.__name__[:80], shown(value)]

    def decode(self, value, parts):
        """The value that `encode` has told of."""
        if not isinstance(value, list):
            return value
        kind, *rest = value
        if kind == "...":
            return Ellipsis
        if kind == "range":
            return range(*rest)
        if kind in ("list", "tuple"):
            found = [self.decode(each, parts) for each in rest[0]]
            return found if kind == "list" else tuple(found)
        if kind == "dict":
            return {self.decode(k, parts): self.decode(v, parts) for k, v in rest[0]}
        if kind in ("array", "scalar", "tensor"):
            array = take(parts[rest[0]])
            if kind == "tensor":
                import tensorflow as tf

                return tf.constant(array)
            return array if kind == "array" else array[()]
        if kind == "network" and self.networks:
            import keras

            model = keras.models.model_from_json(rest[0])
            model.set_weights([take(parts[place]) for place in rest[1]])
            return model
        if kind == "function":
            return self.proxy(int(rest[0]), str(rest[1]))
        name = str(rest[0]) if kind == "other" else str(kind)
        return type(name, (Other,), {})(str(rest[-1])[:200])

    # ------------------------------------------------------------------- calls

    def proxy(self, number, name):
        """A function of the other side."""

        def function(*arguments, **named):
            value = self.ask("call", number, list(arguments), named)
            if not is_tensor(value) or not any(map(is_tensor, arguments)):
                return value
            return self.with_slope(number, value, arguments, named)

        def in_a_graph(*arguments, **named):  # where TensorFlow traces what a function does
            tf = sys.modules.get("tensorflow")
            if tf is None or tf.executing_eagerly() or not any(map(is_tensor, arguments)):
                return function(*arguments, **named)
            return tf.py_function(lambda *a: function(*a, **named), arguments, arguments[0].dtype)

        in_a_graph.__name__ = in_a_graph.__qualname__ = name
        return in_a_graph

    def with_slope(self, number, value, arguments, named):
        """The value, through which TensorFlow finds the gradient that the other side computes."""
        import tensorflow as tf

        tensors = [a for a in arguments if is_tensor(a)]

        @tf.custom_gradient
        def told(*_):
            def slope(upstream):
                found = self.ask("slope", number, list(arguments), named, upstream)
                return found if len(tensors) > 1 else found[0]

            return tf.identity(value), slope

        return told(*tensors)

    def ask(self, kind, *values):
        """Have the other side do something, and answer what it asks meanwhile."""
        self.send(kind, *values)
        while True:
            kind, told = self.receive()
            if kind == "result":
                value, changed = told
                for place, array in changed:
                    mine = values[1][place]  # a function has changed what it was given
                    if isinstance(mine, np.ndarray) and mine.shape == np.shape(array):
                        mine[...] = array
                return value
            if kind == "error":
                raise as_error(*told)
            self.answer(kind, told)

    def answer(self, kind, values):
        """Do what the other side asks for."""
        try:
            if kind == "get":
                result, changed = self.names[values[0]], []
            elif kind == "call":
                number, arguments, named = values
                before = [a.copy() if isinstance(a, np.ndarray) else None for a in arguments]
                result = self.functions[number](*arguments, **named)
                changed = [
                    [place, new]
                    for place, (old, new) in enumerate(zip(before, arguments, strict=True))
                    if old is not None and not same(old, new)
                ]
            elif kind == "slope":
                result, changed = slope_of(self.functions[values[0]], *values[1:]), []
            else:
                raise Gone(f"{kind} is nothing to be asked for")
            self.send("result", result, changed)
        except Gone:
            raise
        except BaseException as error:  # also exit() in a student's function
            self.send("error", type(error).__name__[:80], shown(error, str), own_line(error))

    def serve(self):
        """Answer the other side until it says that this is the end."""
        while True:
            kind, values = self.receive()
            if kind == "end":
                return
            self.answer(kind, values)


def here(names):
    """Serve a judge with the `names` of the process that this is called in."""
    end = socket.socket(fileno=os.dup(int(os.environ["JUDGE"])))
    Peer(end, names, networks=True).serve()


def slope_of(function, arguments, named, upstream):
    """The gradients of a function by those of its arguments that are tensors; None is none."""
    import tensorflow as tf

    tensors = [a for a in arguments if is_tensor(a)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*arguments, **named)
    if not is_tensor(value):
        return [None] * len(tensors)
    return tape.gradient(value, tensors, output_gradients=upstream)


def is_tensor(value):
    """Whether a value is TensorFlow's, without importing TensorFlow for that."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and (tf.is_tensor(value) or isinstance(value, tf.Variable))


def add(array, parts):
    """Put an array among the parts of a message; returns its place there."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    parts.append(buffer.getvalue())
    return len(parts) - 1


def take(part):
    """The array that `add` has written."""
    return np.load(io.BytesIO(part), allow_pickle=False)


def same(one, other):
    """Whether two arrays are equal, NaN included."""
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def shown(value, how=repr):
    """A value or an error as a text that is not too long."""
    try:
        return how(value)[:TEXT]
    except BaseException as error:
        return f"({type(error).__name__})"


def own_line(error):
    """The line of a student's own code at which an error came up, or nothing."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in ("course_utils", "site-packages", "wire.py"))
    ]
    if not own or not own[-1].line:
        return ""
    return f" (line {own[-1].lineno} of its cell: {own[-1].line[:200]})"


def as_error(name, text, line):
    """An error of the other side, to be raised at this one."""
    kind = getattr(builtins, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = type(str(name)[:80], (Exception,), {})
    try:
        error = kind(str(text)[:TEXT])
    except Exception:
        error = type(str(name)[:80], (Exception,), {})(str(text)[:TEXT])
    error.own_line = str(line)[:300]
    return error
