"""How long occlusion takes, beside the documents' loop and the forward passes it consists of.

Needs 4 GB and about five minutes on two quiet cores: python tests/benchmarks/occlusion.py [rounds]
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf
from _bench import compare, compare_table, duration, publish, ratio, table
from _passes import FOLDED, forward
from keras import layers

from course_utils import models, occlusion
from course_utils._partial import make_plan, multiplications
from course_utils._plain import flattened

LOOP, MAP, WHOLE, BARE = (
    "the documents' loop",
    "`occlusion_map`",
    "every place as a whole",
    "bare forward passes",
)

TEXT = """Occlusion covers one place of the image after another, and each place is a forward pass \
of the network. The times are those of one place. Side by side are

- *{loop}*: a copy of the image, and one `model.predict`, for each place;
- *{whole}*: what `occlusion_map` does where a patch reaches everything: copies of the \
image are covered in place, and run in batches of 64;
- *{bare}*: the network as Keras calls it, compiled, in batches of 64, with nothing to cover;
- *{map}*: the function itself. As long as layers look at their neighbourhood only, it computes \
again what lies within reach of the patch, with the same result to 1e-5.
"""

SHARES = """
**What is left to compute.** The processor time of one place in `occlusion_map`, divided by that \
of a bare forward pass in the same rounds; beside it the share of the multiplications that is \
left (a ratio comes below it where the large maps of the first layers wait for memory more than \
for the processor); and the processor time of a first call, compiling included. \
{folded}
"""


def vgg16_convolutions():
    """The 13 convolutions of VGG16 with random weights, and a small head instead of its large one.

    VGG16's own three dense layers would add 494 MB, and 1 % of the multiplications.
    """
    chain = [keras.Input((224, 224, 3))]
    for repeats, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(repeats):
            chain.append(layers.Conv2D(channels, 3, padding="same", activation="relu"))
        chain.append(layers.MaxPooling2D())
    head = [layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10)]
    return keras.Sequential([*chain, *head, layers.Softmax()], name="vgg16_convolutions")


def resnet18():
    """A network of the shape of ResNet18 for images of 64 pixels, with random weights."""

    def convolve(x, filters, size, stride=1):
        x = layers.Conv2D(filters, size, stride, "same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    inputs = keras.Input((64, 64, 3))
    x = layers.ReLU()(convolve(inputs, 64, 3))
    for filters in (64, 128, 256, 512):
        for stride in (1 if filters == 64 else 2, 1):
            way = layers.ReLU()(convolve(x, filters, 3, stride))
            x = convolve(x, filters, 1, stride) if x.shape[-1] != filters or stride > 1 else x
            x = layers.ReLU()(layers.Add()([x, convolve(way, filters, 3)]))
    x = layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


# From a network to how it is made, and the patch.
SHAPES = {
    "ResNet50": (lambda: keras.applications.ResNet50(weights=None), 14),
    "MobileNetV2": (lambda: keras.applications.MobileNetV2(weights=None), 14),
    "EfficientNet-Lite0": (lambda: models.imagenet_classifier().model, 14),
    "ResNet18's shape": (resnet18, 8),
    "`squares_cnn`": (lambda: models.load_trained("squares"), 8),
    "`scenes_cnn`": (lambda: models.load_trained("scenes_fair"), 4),
}


def share(model, patch, rounds):
    """The ratio to bare passes by processor time, the least that it could be, a first call's."""
    keras.utils.set_random_seed(0)
    shape = model.input_shape[1:]
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    places = occlusion.patch_places(shape, patch, patch)
    batch = tf.constant(np.repeat(image, min(64, len(places)), axis=0))
    begin = time.process_time()
    occlusion.occlusion_map(model, image, 0, patch=patch)
    first = time.process_time() - begin
    contenders = {
        MAP: lambda: occlusion.occlusion_map(model, image, 0, patch=patch),
        BARE: lambda: forward(model)(batch).numpy(),
    }
    timings = compare(contenders, rounds, {MAP: len(places), BARE: len(batch)})
    return ratio(timings[MAP], timings[BARE], "cpu"), left(model, patch), first


def left(model, patch):
    """The share of the multiplications that is left."""
    flat = flattened(model, model.input_shape[1:])
    steps = make_plan(flat, patch, patch) or ()
    return multiplications(flat, steps) / multiplications(flat)


def shares(rounds):
    """The table of `SHAPES`, and its numbers."""
    rows, numbers = [], {}
    for title, (build, patch) in SHAPES.items():
        model = build()
        found, least, first = share(model, patch, rounds)
        size = model.input_shape[1]
        rows.append((title, size, patch, f"{found:.2f}", f"{least:.2f}", duration(first)))
        numbers[title] = {"ratio": found, "multiplications": least, "first": first}
    header = ("", "pixels", "patch", "ratio", "multiplications", "first call")
    return f"{SHARES.format(folded=FOLDED)}\n{table(header, rows)}\n", numbers


def measure(model, patch, rounds):
    """Time the contenders on one image; the loop only on a few places, since it is slow."""
    keras.utils.set_random_seed(0)
    shape = model.input_shape[1:]
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    places = occlusion.patch_places(shape, patch, patch)
    some, few = places[:64], len(places[:16])
    fill = np.zeros(shape, np.float32)
    batch = tf.constant(np.repeat(image[np.newaxis], len(some), axis=0))

    def documents_loop():
        pairs = zip(range(few), occlusion.iter_occlusion(image, patch), strict=False)
        for _, (_, _, occluded) in pairs:
            model.predict(occluded[np.newaxis], verbose=0)

    def whole():  # one batch, as for the bare passes
        list(occlusion._whole_pass(model, patch)(image, fill, [some]))

    contenders = {  # the leanest first, because TensorFlow keeps memory that others freed
        MAP: (
            lambda: occlusion.occlusion_map(model, image[np.newaxis], 0, patch=patch),
            len(places),
        ),
        BARE: (lambda: forward(model)(batch).numpy(), len(some)),
        WHOLE: (whole, len(some) + 1),  # one pass is that of the uncovered image
        LOOP: (documents_loop, few),
    }
    if make_plan(flattened(model, shape), patch, patch) is None:
        contenders.pop(WHOLE)  # that is what `occlusion_map` does
    functions = {name: run for name, (run, _) in contenders.items()}
    return compare(functions, rounds, {name: n for name, (_, n) in contenders.items()})


def main(rounds=5):
    """Measure three networks and write their section."""
    networks = {
        "`scenes_cnn`, 64 pixels, patches of 4": (
            lambda: models.load_trained("scenes_fair"),
            4,
            5 * rounds,
        ),
        "EfficientNet-Lite0, 224 pixels, patches of 28": (
            lambda: models.imagenet_classifier().model,
            28,
            2 * rounds,
        ),
        "VGG16's convolutions, random weights, 224 pixels, patches of 14": (
            vgg16_convolutions,
            14,
            rounds,
        ),
    }
    text, numbers = TEXT.format(loop=LOOP, whole=WHOLE, bare=BARE, map=MAP), {}
    for title, (build, patch, rounds) in networks.items():
        model = build()
        timings = measure(model, patch, rounds)
        text += f"\n**{title}**, rounds: {rounds}\n\n{compare_table(timings, MAP)}\n"
        numbers[title] = {name: timing._asdict() for name, timing in timings.items()}
        whole = timings[WHOLE if WHOLE in timings else MAP]
        if WHOLE in timings:
            gain = [ratio(whole, timings[MAP], clock) for clock in ("seconds", "cpu")]
            text += f"\n`occlusion_map` is {gain[0]:.1f} times as fast as whole passes "
            text += f"({gain[1]:.1f} times by processor time); "
            text += f"of the multiplications {left(model, patch):.2f} are left.\n"
        extra = [ratio(whole, timings[BARE], clock) for clock in ("seconds", "cpu")]
        text += f"\nWhole passes take {extra[0]:.2f} times as long as bare ones "
        text += f"({extra[1]:.2f} times by processor time).\n"
    more, numbers["shares"] = shares(max(1, rounds // 2))
    publish("occlusion", "Occlusion", (text + more).strip(), numbers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
