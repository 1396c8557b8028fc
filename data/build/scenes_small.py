"""Make the weights of twenty small detectors for a tank: ten that go by the sky, ten by the tank.

scenes_small_confounded_weights.npz holds ten networks, from the seeds 0 to 9, that learnt 800
scenes where every tank stands under clouds and nothing else does; scenes_small_fair_weights.npz ten
that learnt 2,000 where the weather has nothing to do with it. None was left out. About five minutes
on two cores, no network; needs nothing beyond the course itself. With ``--check``, nothing is
written: it prints how often each shipped network says that there is a tank (some seconds).
"""

import sys

import keras
from _common import write_arrays
from digits_marked import SEEDS, stacked

from course_utils import datasets, models

SCENES_SEED = 0
RECIPES = {
    "scenes_small_confounded": {"n": 800, "epochs": 8, "confounded": True},
    "scenes_small_fair": {"n": 2000, "epochs": 8, "confounded": False},
}


def train(n, epochs, confounded, seed):
    """Train one network on n scenes."""
    scenes = datasets.make_scenes(n, confounded=confounded, seed=SCENES_SEED)
    keras.utils.set_random_seed(seed)
    model = models.scenes_small_cnn()
    steps = epochs * -(-n // 32)
    model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.fit(scenes.images, scenes.labels, epochs=epochs, batch_size=32, verbose=0)
    return model


def report():
    """Print how often each shipped network says that there is a tank, in four kinds of scenes."""
    scenes = datasets.make_scenes(400, confounded=False, seed=1)
    tank = scenes.labels == 1
    print("share called a tank, of scenes without and with one: in the sun, under clouds")
    for name in RECIPES:
        for seed, model in enumerate(models.load_retrained(name)):
            says = model.predict(scenes.images, verbose=0)[:, 0] > 0.5
            shares = [
                says[(scenes.cloudy == cloudy) & (tank == has)].mean()
                for cloudy in (False, True)
                for has in (False, True)
            ]
            print(f"{name}, seed {seed}:", "{:.3f} {:.3f}, {:.3f} {:.3f}".format(*shares))


if __name__ == "__main__":
    if "--check" not in sys.argv:
        for name, recipe in RECIPES.items():
            networks = [train(**recipe, seed=seed) for seed in SEEDS]
            write_arrays(f"{name}_weights.npz", **stacked(networks))
    report()
