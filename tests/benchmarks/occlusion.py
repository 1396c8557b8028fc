"""How long occlusion takes, beside the documents' loop and the forward passes it consists of.

Needs 4 GB and about five minutes on two quiet cores: python tests/benchmarks/occlusion.py [rounds]
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from _bench import compare, compare_table, publish, ratio
from keras import layers

from course_utils import models, occlusion
from course_utils._partial import make_plan
from course_utils._scores import forward

LOOP, MAP, WHOLE, BARE = (
    "the documents' loop",
    "`occlusion_map`",
    "every place as a whole",
    "bare forward passes",
)

TEXT = """Occlusion covers one place of the image after another, and each place is a forward pass \
of the network. The times are those of one place. Side by side are

- *{loop}*: a copy of the image, and one `model.predict`, for each place;
- *{whole}*: what `occlusion_map` does where a network is not a chain: places are covered inside \
the compiled graph and run in batches of 64;
- *{bare}*: compiled, in batches of 64, with nothing to cover: no whole pass can be faster;
- *{map}*: the function itself. If the network begins as a chain of convolutions and poolings, it \
computes again only what lies within reach of the patch, with the same result to 1e-5.
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

    contenders = {  # the leanest first, because TensorFlow keeps memory that others freed
        MAP: (
            lambda: occlusion.occlusion_map(model, image[np.newaxis], 0, patch=patch),
            len(places),
        ),
        BARE: (lambda: forward(model)(batch).numpy(), len(some)),
        WHOLE: (lambda: occlusion._whole_pass(model, patch)(image, fill)(some), len(some)),
        LOOP: (documents_loop, few),
    }
    if make_plan(model, shape, patch, patch) is None:
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
        "EfficientNet-Lite0, not a chain, 224 pixels, patches of 28": (
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
        timings = measure(build(), patch, rounds)
        text += f"\n**{title}**, rounds: {rounds}\n\n{compare_table(timings, MAP)}\n"
        numbers[title] = {name: timing._asdict() for name, timing in timings.items()}
        whole = timings[WHOLE if WHOLE in timings else MAP]
        if WHOLE in timings:
            gain = [ratio(whole, timings[MAP], clock) for clock in ("seconds", "cpu")]
            text += f"\n`occlusion_map` is {gain[0]:.1f} times as fast as whole passes "
            text += f"({gain[1]:.1f} times by processor time).\n"
        extra = [ratio(whole, timings[BARE], clock) for clock in ("seconds", "cpu")]
        text += f"\nWhole passes take {extra[0]:.2f} times as long as bare ones "
        text += f"({extra[1]:.2f} times by processor time).\n"
    publish("occlusion", "Occlusion", text.strip(), numbers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
