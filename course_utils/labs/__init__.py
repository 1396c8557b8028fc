"""The classroom: a room for each lab, with what students are given and the checks of their work.

Data and networks are names of this module, `labs.load_scans`; the checks are `labs.checks`, which
students import as `course_utils.checks`. Every network was trained by a script in ``data/build``.
Nothing outside this folder imports it.
"""

from course_utils.labs.embeddings.material import (
    PostDigits as PostDigits,
)
from course_utils.labs.embeddings.material import (
    load_post_digits as load_post_digits,
)
from course_utils.labs.embeddings.material import (
    load_post_network as load_post_network,
)
from course_utils.labs.embeddings.material import (
    post_cnn as post_cnn,
)
from course_utils.labs.filters.material import (
    STRIPE_ANGLES as STRIPE_ANGLES,
)
from course_utils.labs.filters.material import (
    Stripes as Stripes,
)
from course_utils.labs.filters.material import (
    load_stripes_network as load_stripes_network,
)
from course_utils.labs.filters.material import (
    make_stripes as make_stripes,
)
from course_utils.labs.filters.material import (
    stripes_cnn as stripes_cnn,
)
from course_utils.labs.grad_cam.material import (
    TICKET_EXPLAINERS as TICKET_EXPLAINERS,
)
from course_utils.labs.grad_cam.material import (
    TICKET_NETWORKS as TICKET_NETWORKS,
)
from course_utils.labs.grad_cam.material import (
    Tickets as Tickets,
)
from course_utils.labs.grad_cam.material import (
    load_tickets as load_tickets,
)
from course_utils.labs.grad_cam.material import (
    load_tickets_network as load_tickets_network,
)
from course_utils.labs.grad_cam.material import (
    ticket_map_gradient as ticket_map_gradient,
)
from course_utils.labs.grad_cam.material import (
    tickets_cnn as tickets_cnn,
)
from course_utils.labs.gradients.material import (
    PILL_KINDS as PILL_KINDS,
)
from course_utils.labs.gradients.material import (
    PILL_NETWORKS as PILL_NETWORKS,
)
from course_utils.labs.gradients.material import (
    Pills as Pills,
)
from course_utils.labs.gradients.material import (
    load_pills as load_pills,
)
from course_utils.labs.gradients.material import (
    load_pills_network as load_pills_network,
)
from course_utils.labs.gradients.material import (
    pills_cnn as pills_cnn,
)
from course_utils.labs.gradients.material import (
    pills_gradient as pills_gradient,
)
from course_utils.labs.lime.material import (
    MEADOW_PARTS as MEADOW_PARTS,
)
from course_utils.labs.lime.material import (
    MUSHROOMS as MUSHROOMS,
)
from course_utils.labs.lime.material import (
    Meadows as Meadows,
)
from course_utils.labs.lime.material import (
    draw_meadows as draw_meadows,
)
from course_utils.labs.lime.material import (
    load_meadows as load_meadows,
)
from course_utils.labs.lime.material import (
    meadow_cnn as meadow_cnn,
)
from course_utils.labs.lime.material import (
    meadow_network as meadow_network,
)
from course_utils.labs.occlusion.material import (
    Scans as Scans,
)
from course_utils.labs.occlusion.material import (
    draw_scans as draw_scans,
)
from course_utils.labs.occlusion.material import (
    load_scans as load_scans,
)
from course_utils.labs.occlusion.material import (
    scan_cnn as scan_cnn,
)
from course_utils.labs.occlusion.material import (
    scan_network as scan_network,
)
