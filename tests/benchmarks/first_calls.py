"""How long a first explanation takes, by every method on every network of the course.

Starts Python anew for each, ten minutes on two quiet cores:
python tests/benchmarks/first_calls.py
With methods' names behind it, only they are measured; the others stay as in the last run.
"""

import json
import subprocess
import sys
import time

import numpy as np
from _bench import ROOT, duration, publish, table

NETWORKS = ("efficientnet_lite0", "digits", "squares", "scenes_fair", "speech")
LIMIT = 3  # seconds
LAST = ROOT / "_build" / "benchmarks" / "first_calls.json"
FLOORS = (
    "a bare pass forward",
    "a bare pass forward and back",
    "a bare gradient of a gradient",
)

TEXT = """What a reader waits for who explains one picture for the first time: the processor time \
of a method's first call in a new process, once the network is loaded, and of the same call again. \
In between lies what is done once for a network, most of it TensorFlow's tracing and compiling; so \
methods that ask many times are let off with 16 samples, patches, masks or steps (LIME and Shapley \
values with 64 samples), Score-CAM with the maps of the first convolution. What most are made of \
stands first: the network itself, as Keras calls it, compiled and run, forward, or forward and \
back; and, for the attack, the gradient of a gradient, through ReLUs whose slopes have one. One \
measurement each.

EfficientNet-Lite0, 224 pixels:

{large}

The small networks, first calls:

{small}

{verdict}
"""


def methods(model, image):
    """From each method's name to a call of it that needs few passes."""
    import tensorflow as tf
    from _passes import forward, gradient

    from course_utils import (
        activation,
        attack,
        cam,
        counterfactual,
        embedding,
        gradients,
        inspection,
        lime_image,
        metrics,
        occlusion,
        relevance,
        shapley,
    )
    from course_utils._bent import bent
    from course_utils._scores import pick, score_model

    x, size = image[np.newaxis], image.shape[0]
    convolution = next(layer for layer in model.layers if hasattr(layer, "kernel_size"))
    heat = np.random.default_rng(0).random((1, *image.shape[:2]))
    one = (model, x, 0)
    part = {"n_segments": 9, "samples": 64}

    def bare(run, *targets):
        return run(score_model(model, "logit"))(tf.constant(x), *targets).numpy()

    @tf.function(autograph=False)
    def of_gradient(points):
        scored = score_model(model, "logit")
        with bent(scored), tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(points)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(points)
                scores = pick(scored(points, training=False), tf.zeros(1, tf.int64))
            size = tf.reduce_sum(tf.abs(tape.gradient(scores, points)))
        return outer.gradient(size, points)

    return {
        FLOORS[0]: lambda: bare(forward),
        FLOORS[1]: lambda: bare(gradient, tf.zeros(1, tf.int64)),
        FLOORS[2]: lambda: of_gradient(tf.constant(x)).numpy(),
        "saliency": lambda: gradients.saliency_map(*one),
        "gradient times input": lambda: gradients.gradient_times_input(*one),
        "SmoothGrad": lambda: gradients.smoothgrad(*one, samples=16),
        "integrated gradients": lambda: gradients.integrated_gradients(*one, steps=16),
        "Grad-CAM": lambda: cam.grad_cam(*one),
        "Grad-CAM++": lambda: cam.grad_cam_plus_plus(*one),
        "HiResCAM": lambda: cam.hires_cam(*one),
        "LayerCAM": lambda: cam.layer_cam(*one),
        "Score-CAM": lambda: cam.score_cam(*one, layer=convolution),
        "occlusion": lambda: occlusion.occlusion_map(*one, patch=size // 4),
        "RISE": lambda: occlusion.rise_map(*one, samples=16, cells=4),
        "LIME": lambda: lime_image.lime_map(*one, **part),
        "Shapley values": lambda: shapley.shapley_map(*one, **part),
        "relevance, epsilon-plus": lambda: relevance.relevance_map(*one),
        "relevance, epsilon-gamma-box": lambda: relevance.relevance_map(
            *one, rule="epsilon-gamma-box"
        ),
        "relevance, epsilon-alpha2-beta1": lambda: relevance.relevance_map(
            *one, rule="epsilon-alpha2-beta1"
        ),
        "activation maximisation, a class": lambda: activation.maximize_activation(
            model, target=0, steps=16
        ),
        "activation maximisation, a channel": lambda: activation.maximize_activation(
            model, layer=convolution, channel=0, steps=16
        ),
        "counterfactual": lambda: counterfactual.counterfactual(*one, to=1, steps=16),
        "attack on saliency": lambda: attack.attack_explanation(*one, epsilon=0.01, steps=16),
        "deletion": lambda: metrics.deletion_curve(*one, heat, steps=16),
        "insertion": lambda: metrics.insertion_curve(*one, heat, steps=16),
        "feature maps": lambda: inspection.feature_maps(model, x, convolution),
        "embedding": lambda: embedding.layer_outputs(model, x, [model.layers[-2]]),
    }


def network(name):
    """The network and an image for it."""
    from course_utils import datasets, models

    if name == "efficientnet_lite0":
        found = models.imagenet_classifier()
        photo = datasets.load_photo(datasets.photo_names()[0])
        return found.model, found.preprocess(photo[np.newaxis])[0]
    model = models.load_trained(name)
    image = np.random.default_rng(0).random(model.input_shape[1:], np.float32)
    return model, image


def measure(name, method):
    """Print the first call's processor and clock time, and the second call's."""
    run = methods(*network(name))[method]
    times = []
    for _ in range(2):
        cpu, clock = time.process_time(), time.perf_counter()
        run()
        times += [time.process_time() - cpu, time.perf_counter() - clock]
    print(json.dumps(times))


def anew(name, method):
    """What `measure` prints in a new process."""
    command = [sys.executable, __file__, name, "--", method]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{method} on {name}: {done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}, {method}: {', '.join(map(duration, found))}", flush=True)
    return dict(zip(("first", "first_clock", "second", "second_clock"), found, strict=True))


def verdict(found):
    """Which first calls take longer than the limit, in a sentence."""
    slow = [
        f"{method} on `{name}` ({duration(times['first'])}; {_floor(method, rows)})"
        for name, rows in found.items()
        for method, times in rows.items()
        if times["first"] > LIMIT and method not in FLOORS
    ]
    if slow:
        return f"Over {LIMIT} s: {'; '.join(slow)}."
    return f"None takes over {LIMIT} s."


def _floor(method, rows):
    """What the network alone takes for what a method does at least."""
    floor = FLOORS[2 if method.startswith("attack") else 1]
    first, again = (duration(rows[floor][call]) for call in ("first", "second"))
    return f"{floor} {first}, and {again} every further time"


def main(chosen):
    """Measure the networks and write their section; all but the chosen methods as last time."""
    listed = list(methods(*network("digits")))
    last = json.loads(LAST.read_text()) if chosen else {}
    found = {
        name: {m: last[name][m] if chosen and m not in chosen else anew(name, m) for m in listed}
        for name in NETWORKS
    }
    clocks = ("first", "first_clock", "second")
    large, *small = NETWORKS
    rows = [(m, *(duration(found[large][m][clock]) for clock in clocks)) for m in listed]
    text = TEXT.format(
        large=table(("", "first call", "by the clock", "again"), rows),
        small=table(
            ("", *(f"`{name}`" for name in small)),
            [(m, *(duration(found[name][m]["first"]) for name in small)) for m in listed],
        ),
        verdict=verdict(found),
    )
    if chosen:
        text += f"\nMeasured in this run: {', '.join(chosen)}; all else in an earlier one.\n"
    publish("first_calls", "First calls", text, found)


if __name__ == "__main__":
    if sys.argv[2:3] == ["--"]:
        measure(sys.argv[1], sys.argv[3])
    else:
        main(sys.argv[1:])
