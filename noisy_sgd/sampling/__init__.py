"""Who takes part in each step, and how often one example takes part: one class per sampling scheme.

A scheme draws batches as a pure function of (key, step). For the accounting it states how one example takes part in a
run (its `Participation`). The mechanism prices the run from that, and `noisy_sgd.privacy.Plan` joins the two.

    scheme = sampling.named("poisson")(num_examples=60_000, batch_size=256, seed=7)
    scheme.indices(step=0)                       # the examples of step 0
    scheme.participation(num_steps=1_000)        # 1,000 times, each with probability 256 / 60,000
"""

from noisy_sgd import checks
from noisy_sgd.sampling import cyclic, poisson, present, random_allocation, scheme, shuffled
from noisy_sgd.sampling.cyclic import Cyclic
from noisy_sgd.sampling.poisson import CappedPoisson, Poisson
from noisy_sgd.sampling.present import Present
from noisy_sgd.sampling.random_allocation import RandomAllocation
from noisy_sgd.sampling.scheme import EpochScheme, Participation, PricedEvent, Scheme
from noisy_sgd.sampling.shuffled import Shuffled

SCHEMES: dict[str, type[Scheme]] = {kind.name: kind for kind in (Poisson, Shuffled, RandomAllocation, Cyclic)}

__all__ = [
    "CappedPoisson",
    "Cyclic",
    "EpochScheme",
    "Participation",
    "Poisson",
    "Present",
    "PricedEvent",
    "RandomAllocation",
    "SCHEMES",
    "Scheme",
    "Shuffled",
    "cyclic",
    "named",
    "poisson",
    "present",
    "random_allocation",
    "scheme",
    "shuffled",
]


def named(name: str | type[Scheme]) -> type[Scheme]:
    """The class of a scheme by its name, as in `sampling="poisson"`; a class of yours is taken as it is.

    Raises:
        ValueError: if no scheme has the name.
    """
    if isinstance(name, type) and issubclass(name, Scheme):
        return name
    return SCHEMES[checks.choice("sampling", name, tuple(SCHEMES))]
