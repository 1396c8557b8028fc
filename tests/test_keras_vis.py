"""keras_vis refuses what it cannot rebuild, and leaves nothing behind when its process fails.

That its numbers are right is tested in peers/test_keras_vis_equality.py.
"""

import base64
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from course_utils import keras_vis

X = np.ones((1, 6, 6, 1), np.float32)


def chain(*inner):
    return keras.Sequential([keras.Input((6, 6, 1)), *inner, layers.Flatten(), layers.Dense(3)])


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files, in which nothing of keras_vis may be left in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.glob("keras_vis_*")) == []


@pytest.fixture
def worker(tmp_path, monkeypatch, temporary):
    """Put another script in the place of the worker; it writes the ids of its processes down."""
    ids = tmp_path / "ids.txt"

    def replace(code):
        script = tmp_path / "worker.py"
        start = f"import os, subprocess, sys, time\nids = open({str(ids)!r}, 'w')\n"
        start += "print(os.getpid(), file=ids, flush=True)\n"
        script.write_text(start + code)
        monkeypatch.setattr(keras_vis, "_WORKER", script)
        return ids

    return replace


def gone(pid):
    """Whether the process ends soon (one that was ended takes a moment, on a busy machine more)."""
    for _ in range(600):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").is_file() and ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return True  # dead; whoever adopted it has not asked for its code yet
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("name", ["keras-vis", "tf-keras"])
def test_where_it_is_not_installed_one_sentence_says_what_to_install(name, monkeypatch, temporary):
    real = metadata.version

    def version(asked):
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return real(asked)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(ImportError) as caught:
        keras_vis.saliency_map(chain(), X, 0)
    message = str(caught.value)
    assert re.search(r'pip install "keras-vis==0\.4\.1" "tf-keras==2\.\d+\.\*"', message)
    assert "\n" not in message
    assert message.count(". ") == 0


def test_another_keras_vis_is_not_taken_for_the_original(monkeypatch, temporary):
    monkeypatch.setattr(metadata, "version", lambda name: "0.5.0")
    with pytest.raises(ImportError, match=r"keras-vis 0\.4\.1 and tf-keras are installed"):
        keras_vis.maximize_activation(chain(), 0)


def test_what_it_asks_for_is_what_the_course_declares():
    book = [r for r in metadata.requires("course-utils") if r.endswith('extra == "book"')]
    assert any(r.startswith("keras-vis>=0.4.1") for r in book)
    assert any(re.match(r"tf-keras\b(?!-vis)", r) for r in book)


def test_the_installed_keras_vis_is_unmodified():
    files = [f for f in metadata.files("keras-vis") if f.parts[0] == "vis" and f.hash]
    assert len(files) >= 15
    for file in files:
        digest = hashlib.new(file.hash.mode, file.locate().read_bytes()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value, file


def test_numbers_may_be_numpy_s(worker):
    worker("sys.exit('it was asked')")
    options = {"steps": np.int64(2), "seed": np.int64(1), "tv_weight": np.float32(1)}
    with pytest.raises(RuntimeError, match="it was asked"):
        keras_vis.maximize_activation(chain(), np.int64(0), **options)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('fine so far'); raise KeyError('conv_9')", r"code 1\. .*wrote: KeyError: 'conv_9'"),
        ("sys.exit('no memory left\\n\\n')", r"code 1\. The last it wrote: no memory left$"),
        ("print('busy', flush=True); os.abort()", r"code -6\. The last it wrote: busy$"),
        ("os._exit(3)", r"code 3\. The last it wrote: nothing$"),
    ],
)
def test_a_crash_carries_the_last_line_the_process_wrote(code, message, worker):
    ids = worker(code)
    with pytest.raises(RuntimeError, match=message):
        keras_vis.grad_cam(chain(layers.Conv2D(2, 3)), X, 0)
    assert gone(int(ids.read_text()))


HANG = """
print("step 1 of 2", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, file=ids, flush=True)
time.sleep(600)
"""


def until_it_hangs(ids):
    """Wait until the worker has written both ids down, which it may be slow to do."""
    for _ in range(6000):
        if ids.exists() and ids.read_text().count("\n") == 2:
            return
        time.sleep(0.05)


def test_a_hang_ends_in_time_with_all_its_processes(worker, monkeypatch):
    ids, wait, begun = worker(HANG), subprocess.Popen.wait, []

    def from_then_on(process, timeout=None):
        until_it_hangs(ids)
        begun.append(time.monotonic())
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", from_then_on)
    with pytest.raises(RuntimeError, match=r"after 1 seconds \(the timeout\)\. .*: step 1 of 2$"):
        keras_vis.saliency_map(chain(), X, 0, timeout=1)
    assert 1 <= time.monotonic() - begun[0] < 300
    processes = [int(line) for line in ids.read_text().split()]
    assert len(processes) == 2
    assert all(map(gone, processes))


def test_a_crash_ends_what_the_process_had_started(worker):
    ids = worker(HANG.replace("time.sleep(600)\n", "sys.exit('lost')\n"))
    with pytest.raises(RuntimeError, match="lost"):
        keras_vis.saliency_map(chain(), X, 0)
    assert all(gone(int(line)) for line in ids.read_text().split())


def test_an_interrupt_ends_the_process(worker, monkeypatch):
    ids = worker(HANG)
    wait = subprocess.Popen.wait

    def interrupted(process, timeout=None):
        if timeout is None:  # the wait after the process has been ended
            return wait(process)
        until_it_hangs(ids)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keras_vis.saliency_map(chain(), X, 0)
    assert all(gone(int(line)) for line in ids.read_text().split())


def test_the_process_ends_with_the_one_that_waits_for_it(tmp_path):
    folder = tmp_path / "orphaned"
    folder.mkdir()
    worker = f"""
import os, pathlib, sys
from course_utils._keras_vis_worker import end_with_parent
print(os.getpid(), flush=True)
end_with_parent(pathlib.Path({str(folder)!r}), int(sys.argv[1]))
"""
    starts = f"""
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-c", {worker!r}, str(os.getpid())],
                           start_new_session=True, stdout=subprocess.PIPE, text=True)
print(process.stdout.readline(), flush=True)
os.kill(os.getpid(), {signal.SIGKILL:d})
"""
    run = subprocess.run([sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True)
    assert run.returncode == -signal.SIGKILL
    assert gone(int(run.stdout))
    assert not folder.exists()


def test_an_error_of_keras_vis_itself_comes_through(temporary):
    with pytest.raises(RuntimeError, match="ValueError: Unable to determine penultimate `Conv`"):
        keras_vis.grad_cam(chain(), X, 0)  # has no convolution


def test_nothing_is_believed_when_the_rebuilt_network_answers_otherwise(monkeypatch, temporary):
    predict = keras_vis.predict
    monkeypatch.setattr(keras_vis, "predict", lambda *args: predict(*args) + [0, 0, 0.01])
    with pytest.raises(RuntimeError, match=r"in tf_keras gives other scores, by up to 0\.01"):
        keras_vis.saliency_map(chain(), X, 0)


def shortcut():
    inputs = keras.Input((6, 6, 1))
    inner = layers.Conv2D(1, 3, padding="same")(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs + inner)))


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


def named_like_keras_own():
    return type("Dense", (Doubled,), {})(3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (shortcut, "gets chains of layers; 'add.*' is not in a chain"),
        (lambda: chain(Doubled(3)), "is a Doubled, which cannot be rebuilt"),
        (lambda: chain(named_like_keras_own()), "is a Dense, which cannot be rebuilt"),
        (lambda: chain(layers.SpatialDropout2D(0.5)), "is a SpatialDropout2D, which cannot"),
        (lambda: chain(chain()), "is a Sequential, which cannot be rebuilt"),
        (
            lambda: chain(layers.Conv2D(2, 3, activation=keras.layers.LeakyReLU())),
            "not one of Keras's own",
        ),
        (lambda: chain(layers.MaxPooling2D(1, data_format="channels_first")), "its channels first"),
        (lambda: chain(layers.Conv2D(2, 3), layers.Conv2D(2, 3, groups=2)), "in groups"),
        (lambda: keras.Sequential([layers.Dense(3)]), "is not built yet"),
    ],
)
def test_only_chains_of_plain_layers_are_taken(model, message):
    with pytest.raises(ValueError, match=message):
        keras_vis.maximize_activation(model(), 0, layer=-1)


def one_output():
    return keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(1, activation="sigmoid")]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: keras_vis.saliency_map(m, X[0], 0), "Add the batch axis"),
        (lambda m: keras_vis.saliency_map(m, X, 3), "target 3 does not exist"),
        (lambda m: keras_vis.saliency_map(m, X, [0, 1]), "one class for all 1 images"),
        (lambda m: keras_vis.saliency_map(one_output(), X, 0), "there is none for target 0"),
        (
            lambda m: keras_vis.saliency_map(m, X, 0, backprop_modifier="deconv"),
            'None, "guided" or "rectified", got \'deconv\'',
        ),
        (lambda m: keras_vis.grad_cam(m, X, 0, layer="conv_9"), "no layer 'conv_9'. It has 0:"),
        (lambda m: keras_vis.grad_cam(m, X, 0, layer=-1), "has no feature maps"),
        (lambda m: keras_vis.maximize_activation(m, 3), "target 3 does not exist"),
        (lambda m: keras_vis.maximize_activation(m, 4, layer=0), "has filters 0 to 3, got"),
        (lambda m: keras_vis.maximize_activation(m, [0.5], layer=0), "must be one or more filters"),
        (lambda m: keras_vis.maximize_activation(m, 0, steps=0), "steps must be a whole number"),
        (lambda m: keras_vis.maximize_activation(m, 0, seed=-1), "seed must be a whole number"),
        (
            lambda m: keras_vis.maximize_activation(m, 0, input_range=(1, 0)),
            r"\(least, largest\), got \(1, 0\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_a_process_starts(call, message, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ValueError, match=message):
        call(chain(layers.Conv2D(4, 3)))
