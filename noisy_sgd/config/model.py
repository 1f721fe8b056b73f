"""The flags of the network: a name or a saved model, its precision, and the range of its pixels.

model.Model(model="mine.keras", pixel_range="-1,1").is_saved      # True
"""

import dataclasses
import math

from noisy_sgd.config import rules

MODELS = ("nf_resnet_tiny", "nf_resnet_small", "nf_resnet50", "wrn_16_4", "mlp", "mnist_cnn", "mnist_cnn_tanh")
PRECISIONS = ("float32", "bfloat16")
CONVENTIONS = ("deepmind", "timm", "tan")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Which network is trained: a name, or the path of a saved functional Keras model; `hidden` are an mlp's units.

    `precision` is that of the layers' arithmetic; weights, norms, sums and noise are always float32. `pixel_range` says
    which pixels a saved model gets: "raw" are the data's own, "LOW,HIGH" scales them to that range, "auto" is raw if
    the model begins with a rescaling of its own, and otherwise 0 to 1. `convention` chooses between the published
    implementations of an nf_resnet (None: deepmind). `initial_weights` is the path of a .npz file of named arrays.
    """

    model: str = "nf_resnet_tiny"
    hidden: tuple[int, ...] | None = None
    precision: str = "float32"
    pixel_range: str = "auto"
    convention: str | None = None
    initial_weights: str | None = None

    def __post_init__(self):
        listed = ",".join(map(str, self.hidden or ()))
        usable = self.hidden is None or (self.model == "mlp" and min(self.hidden, default=0) >= 1)
        constraint = "needs `--model=mlp` and one or more positive whole numbers"
        rules.require(usable, "hidden", constraint, listed, "leave it out otherwise")
        rules.require_choice("precision", self.precision, PRECISIONS)
        pixel_bounds(self.pixel_range)
        if self.convention is not None:
            rules.require_choice("convention", self.convention, CONVENTIONS)
            meant = self.model.startswith("nf_resnet") and not self.is_saved
            constraint = f"means nothing to {self.model}, which is no nf_resnet"
            rules.require(meant, "convention", constraint, self.convention, "leave it out")
        if self.is_saved:
            meant, constraint = self.initial_weights is None, "means nothing to a saved model, which has weights"
            rules.require(meant, "initial_weights", constraint, self.initial_weights, "leave it out")
            constraint, way_out = "cannot be given to a saved model, which has its own", "leave it out"
            rules.require(self.precision == "float32", "precision", constraint, self.precision, way_out)
        else:
            rules.require_choice("model", self.model, (*MODELS, "PATH.keras"))
            constraint = f"means nothing to {self.model}, which knows the data's own range"
            rules.require(self.pixel_range == "auto", "pixel_range", constraint, self.pixel_range, "leave it out")

    @property
    def is_saved(self) -> bool:
        """Whether the network is a saved model, not one of the named ones."""
        return self.model.endswith(".keras")


def pixel_bounds(pixel_range: str) -> tuple[float, float] | None:
    """The two numbers of a range such as "0,1"; None for "raw" and "auto"."""
    if pixel_range in ("raw", "auto"):
        return None
    try:
        low, high = map(float, pixel_range.split(","))
    except ValueError:
        low = high = math.nan
    usable = low < high and math.isfinite(high - low)
    constraint, way_out = "must be raw, auto, or two rising numbers with a comma between them", "most models expect 0,1"
    rules.require(usable, "pixel_range", constraint, pixel_range, way_out)
    return low, high
