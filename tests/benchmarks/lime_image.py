"""How long LIME takes, beside the lime library and the forward passes it consists of.

Needs 2 GB and about two minutes on two quiet cores: python tests/benchmarks/lime_image.py [rounds]
(Not called lime.py, which would hide the library from itself.)
"""

import sys

import numpy as np
import tensorflow as tf
from _bench import compare, compare_table, publish, ratio
from _passes import FOLDED, forward
from lime import lime_image as library

from course_utils import datasets, models
from course_utils.lime_image import explain_image, superpixels

OURS, BARE, LIBRARY = "`explain_image`", "bare forward passes", "the lime library"

TEXT = """LIME hides superpixels at random, and each sample is a forward pass of the network. Side \
by side are *{bare}*, the network as Keras calls it, compiled, in batches of 64, with nothing to \
hide; *{ours}* with 49 or so superpixels, which it is given; and *{library}*, given the same \
superpixels and the same compiled network in batches of 64. All are run once before the clock \
starts. To cut the image comes on top and is the same for both: SLIC takes some hundredths of a \
second. {folded}

The tank detector (64 × 64 pixels), {small_samples:,} samples:

{small}

EfficientNet-Lite0 (224 × 224 pixels), {large_samples:,} samples:

{large}
"""


def measure(model, image, samples, rounds):
    """Time the contenders on one image."""
    segments = superpixels(image, n_segments=49)
    run = forward(model)
    batch = tf.constant(np.repeat(image[np.newaxis], 64, axis=0))

    def bare():
        for start in range(0, samples, 64):
            run(batch[: samples - start]).numpy()

    def ours():
        explain_image(model, image, 0, segments=segments, samples=samples)

    def theirs():
        explainer = library.LimeImageExplainer(random_state=0, feature_selection="none")
        explainer.explain_instance(
            image,
            lambda images: run(tf.constant(images)).numpy(),
            labels=(0,),
            top_labels=None,
            num_samples=samples,
            batch_size=64,
            segmentation_fn=lambda _: segments,
        )

    return compare({BARE: bare, OURS: ours, LIBRARY: theirs}, rounds)


def main(rounds=5):
    library.tqdm = iter  # no progress bar
    scene = datasets.make_scenes(2, confounded=False, seed=0).images[0]
    classifier = models.imagenet_classifier()
    photo = classifier.preprocess(datasets.load_photo("collage_panda_dog"))[0]
    small = measure(models.load_trained("scenes_fair"), scene, 1000, rounds)
    large = measure(classifier.model, photo, 200, rounds)
    text = TEXT.format(
        folded=FOLDED,
        bare=BARE,
        ours=OURS,
        library=LIBRARY,
        small_samples=1000,
        large_samples=200,
        small=compare_table(small, BARE),
        large=compare_table(large, BARE),
    )
    numbers = {
        f"{size}_{name}": ratio(timings[contender], timings[BARE], "cpu")
        for size, timings in (("small", small), ("large", large))
        for name, contender in (("ours", OURS), ("library", LIBRARY))
    }
    publish("lime", "LIME", text, numbers)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
