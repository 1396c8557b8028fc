"""course_utils: see what a convolutional network is doing.

One module per idea; each explanation is a function
``heatmaps = explain(model, images, targets, ...)`` from numpy arrays to numpy arrays.
Modules load when first used, so ``import course_utils`` costs next to nothing.
"""

from importlib import import_module as _import_module

from course_utils._quiet import quiet as _quiet

__version__ = "0.1.0"

__all__ = [
    "activation",
    "at_scale",
    "attack",
    "cam",
    "checks",
    "concepts",
    "counterfactual",
    "datasets",
    "embedding",
    "gradients",
    "inspection",
    "keras_vis",
    "labs",
    "lime_image",
    "metrics",
    "models",
    "occlusion",
    "photo",
    "plots",
    "quiz",
    "relevance",
    "scatter",
    "shapley",
    "surrogates",
]


def __getattr__(name):
    if name == "checks":  # students' name for what belongs to the classroom
        return _import_module(f"{__name__}.labs.checks")
    if name in __all__:
        with _quiet():
            return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
