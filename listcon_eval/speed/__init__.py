"""How fast inference is, and whether it still ranks as the published procedure does. Needs no mteb and no pandas."""

from listcon_eval.speed.measure import Settings, measure
from listcon_eval.speed.models import SIZES, write_random_checkpoint
from listcon_eval.speed.records import Measurement
from listcon_eval.speed.render import as_text, markdown_with
from listcon_eval.speed.shapes import Shape, shape_named, shapes
from listcon_eval.speed.workload import Workload, read_workload, synthetic_workload

__all__ = [
    "SIZES",
    "Measurement",
    "Settings",
    "Shape",
    "Workload",
    "as_text",
    "markdown_with",
    "measure",
    "read_workload",
    "shape_named",
    "shapes",
    "synthetic_workload",
    "write_random_checkpoint",
]
