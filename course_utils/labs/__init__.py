"""The classroom: a room for each lab, with what students are given and the checks of their work.

Data and networks are names of this module, `labs.load_scans`; the checks are `labs.checks`, which
students import as `course_utils.checks`. Every network was trained by a script in ``data/build``.
Nothing outside this folder imports it. A room opens when something in it is first used, so that
whoever needs the checks alone does not wait for TensorFlow.
"""

from importlib import import_module as _import_module

from course_utils.labs._variant import member, variant

_GIVEN = {
    "embeddings": ("PostDigits", "load_post_digits", "load_post_network", "post_cnn"),
    "filters": ("STRIPE_ANGLES", "Stripes", "load_stripes_network", "make_stripes", "stripes_cnn"),
    "grad_cam": (
        "TICKET_EXPLAINERS",
        "TICKET_NETWORKS",
        "Tickets",
        "load_tickets",
        "load_tickets_network",
        "ticket_map_gradient",
        "tickets_cnn",
    ),
    "gradients": (
        "PILL_KINDS",
        "PILL_NETWORKS",
        "Pills",
        "load_pills",
        "load_pills_network",
        "pills_cnn",
        "pills_gradient",
    ),
    "lime": (
        "MEADOW_PARTS",
        "MUSHROOMS",
        "Meadows",
        "draw_meadows",
        "load_meadows",
        "meadow_cnn",
        "meadow_network",
    ),
    "occlusion": ("Scans", "draw_scans", "load_scans", "scan_cnn", "scan_network"),
}

__all__ = ["member", "variant", *(name for names in _GIVEN.values() for name in names)]


def __getattr__(name):
    for room, names in _GIVEN.items():
        if name in names:
            return getattr(_import_module(f"{__name__}.{room}.material"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
