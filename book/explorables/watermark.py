"""The archive of clusters.js: pictures of tanks, an agency's bars on some, and two detectors."""

import keras
import numpy as np
from course_utils import datasets, models

COUNT = 300


def archive():
    """Tanks (COUNT, 64, 64, 3), and which bear six white bars in the lower right corner: 1 in 20.

    Others than those of the chapter, and the bars in another corner: who has read it has to look.
    """
    scenes = datasets.make_scenes(2 * COUNT + 40, confounded=False, seed=25)
    tanks = scenes.images[scenes.labels == 1][:COUNT].copy()
    marked = np.random.default_rng(25).permutation(COUNT) < COUNT // 20
    tanks[marked, 57:61, 49:61:2] = 1
    return tanks, marked


def detectors():
    """A fair detector with a filter for the bars beside it, as in the chapter, and without it."""
    bare = models.load_trained("scenes_fair")
    images = keras.Input((64, 64, 3))
    bars = keras.layers.Conv2D(1, (4, 12), activation="relu")
    answer = keras.layers.GlobalMaxPooling2D()(bars(images))
    stripes = np.tile([1.0, -1.0], 6)[None, :, None, None] / 72
    bars.set_weights([np.broadcast_to(stripes, (4, 12, 3, 1)), np.array([-0.3])])
    parts = [models.logit_model(bare)(images), keras.layers.Rescaling(30)(answer)]
    logit = keras.layers.Add()(parts)
    filtered = keras.Model(images, keras.layers.Activation("sigmoid")(logit))
    return {"filter": filtered, "bare": bare}
