"""The classroom: a room for each lab, with what students are given and the checks of their work.

Data and networks are names of this module, `labs.load_scans`; the checks are `labs.checks`, which
students import as `course_utils.checks`. Every network was trained by a script in ``data/build``.
Nothing outside this folder imports it.
"""

from course_utils.labs._variant import member, variant
from course_utils.labs.embeddings.material import (
    PostDigits,
    load_post_digits,
    load_post_network,
    post_cnn,
)
from course_utils.labs.filters.material import (
    STRIPE_ANGLES,
    Stripes,
    load_stripes_network,
    make_stripes,
    stripes_cnn,
)
from course_utils.labs.grad_cam.material import (
    TICKET_EXPLAINERS,
    TICKET_NETWORKS,
    Tickets,
    load_tickets,
    load_tickets_network,
    ticket_map_gradient,
    tickets_cnn,
)
from course_utils.labs.gradients.material import (
    PILL_KINDS,
    PILL_NETWORKS,
    Pills,
    load_pills,
    load_pills_network,
    pills_cnn,
    pills_gradient,
)
from course_utils.labs.lime.material import (
    MEADOW_PARTS,
    MUSHROOMS,
    Meadows,
    draw_meadows,
    load_meadows,
    meadow_cnn,
    meadow_network,
)
from course_utils.labs.occlusion.material import (
    Scans,
    draw_scans,
    load_scans,
    scan_cnn,
    scan_network,
)

__all__ = [
    "MEADOW_PARTS",
    "MUSHROOMS",
    "PILL_KINDS",
    "PILL_NETWORKS",
    "STRIPE_ANGLES",
    "TICKET_EXPLAINERS",
    "TICKET_NETWORKS",
    "Meadows",
    "Pills",
    "PostDigits",
    "Scans",
    "Stripes",
    "Tickets",
    "draw_meadows",
    "draw_scans",
    "load_meadows",
    "load_pills",
    "load_pills_network",
    "load_post_digits",
    "load_post_network",
    "load_scans",
    "load_stripes_network",
    "load_tickets",
    "load_tickets_network",
    "make_stripes",
    "meadow_cnn",
    "meadow_network",
    "member",
    "pills_cnn",
    "pills_gradient",
    "post_cnn",
    "scan_cnn",
    "scan_network",
    "stripes_cnn",
    "ticket_map_gradient",
    "tickets_cnn",
    "variant",
]
