"""What a run may and may not claim about privacy, in words before it trains and as a record afterwards.

The statement is a pure function of how the run is set up. It names the guarantee with everything it depends on, then
what is not claimed, because readers take a bare epsilon for more than it says. Only DP-SGD has a guarantee; that of
Noisy-SGD (eq. 11 of arXiv 2402.08344) would need a bound on one example's gradient, which nothing provides.

    claims = statement("dp_sgd", plan)     # a `noisy_sgd.privacy.Plan` of optimizer.mechanism
    print(claims.text)
    json.dumps(claims.as_dict(), allow_nan=False)
"""

import dataclasses
import math
from collections.abc import Sequence

from noisy_sgd import checks, sampling
from noisy_sgd.privacy import accounting, ledger, truncation
from noisy_sgd.privacy import plan as plans

ALGORITHMS = ("sgd", "noisy_sgd", "dp_sgd")
UNIT = "one training example"

_NOT_CLAIMED = (
    "the choice of hyper-parameters, where results on these data guided it",
    "preprocessing computed from these data, such as their mean or their vocabulary",
    "the number of examples, which is treated as public",
    "whatever is read from the data without noise: training loss and accuracy, gradient norms, the fraction clipped; "
    "how long a step takes, which reveals how many examples a Poisson batch had; and checkpoints, which hold the noise "
    "key",
    "other runs on the same data, such as those of other seeds: all that they release together costs more",
    "several examples of the same person: together they are protected less",
    "attacks on floating-point arithmetic or on the pseudo-random generator: the noise is accounted for as exact and "
    "truly random",
)
_UNBOUNDED = "one example can move the weights without bound (unbounded sensitivity, epsilon = infinity)"
# Above this, an adversary's odds may grow by more than e^20: the number is correct but protects nobody.
_LARGEST_MEANINGFUL_EPSILON = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """One run's claim. With a guarantee `reason` is None; without one `reason` says why and `epsilon` is infinity."""

    algorithm: str
    guaranteed: bool
    reason: str | None
    epsilon: float
    delta: float | None = None
    unit: str = UNIT
    neighbors: str | None = None
    sampling: str | None = None
    amplification: bool | None = None
    accountant: str | None = None
    noise_multiplier: float | None = None
    count_noise_multiplier: float | None = None
    noise_correlation: tuple[float, ...] | None = None
    l2_norm_clip: float | None = None
    clipping: str | None = None
    batch_size: int | None = None
    num_examples: int | None = None
    num_steps: int | None = None
    attempts: tuple[tuple[int, int], ...] | None = None
    capacity: int | None = None
    described: tuple[str, ...] = ()
    covers: str | None = None
    assumes: tuple[str, ...] = ()
    not_claimed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The statement in plain words, several lines, without a final newline."""
        lines = [f"Privacy of this run ({self.algorithm})"]
        if self.guaranteed:
            epsilon = accounting.rounded_up(self.epsilon)
            lines.append(f"Guaranteed: ({epsilon}, {self.delta:g})-differential privacy of {self.unit}.")
        else:
            lines.append(f"No privacy guarantee: {self.reason}.")
        lines += [f"  {sentence}." for sentence in self.described]
        if self.attempts is not None:
            lines.append(f"  Counted: {_attempts_in_words(self.attempts)}.")
        if self.covers is not None:
            lines.append(f"  Covers: {self.covers}.")
        for title, entries in (
            ("Assumes", self.assumes),
            ("Not claimed", self.not_claimed),
            ("Warning", self.warnings),
        ):
            if entries:
                lines.append(f"{title}:")
                lines += [f"  - {entry}." for entry in entries]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """The statement for run.json: strict JSON, infinity being the word "infinity" (which float() reads)."""
        return {name: _as_json(value) for name, value in dataclasses.asdict(self).items()}


_CLIPPING_IN_WORDS = {
    "flat": "clipped to norm",
    "automatic": "scaled to just below norm",
    "normalized": "scaled to norm",
    "per_layer": "clipped layer by layer, to bounds that together make norm",
}


def statement(
    algorithm: str,
    plan: plans.Plan | None = None,
    *,
    clipping: str = "flat",
    explicit_noise_seed: bool = False,
    attempts: Sequence[tuple[int, int]] | None = None,
) -> PrivacyStatement:
    """The privacy statement of a run.

    All arguments but the first are for "dp_sgd"; the others have no guarantee, whatever the plan.

    Args:
        algorithm: "sgd", "noisy_sgd" or "dp_sgd".
        plan: what the run does and how it is accounted for, with the optimizer's mechanism as its event; its number of
            steps is the number that the run will take, or took. A warning is added where its delta is not below
            1 / num_examples.
        clipping: how a gradient is brought within C, "flat", "automatic", "normalized" or "per_layer" (see
            `noisy_sgd.clipped_gradient_sum`): all bound it by C, so that none changes epsilon. Defaults to "flat".
        explicit_noise_seed: whether the noise key comes from a seed that somebody chose or recorded. Defaults to False.
        attempts: `Ledger.attempts` of a run that was resumed: epsilon is that of all steps they cover, with the current
            attempt continued to the plan's last step. Defaults to None, one unbroken run.

    Returns:
        The statement.

    Raises:
        ValueError: for an unknown algorithm, or for "dp_sgd" without a plan of a mechanism.
    """
    checks.choice("algorithm", algorithm, ALGORITHMS)
    if algorithm != "dp_sgd":
        reason = f"nothing is clipped, so {_UNBOUNDED}"
        if algorithm == "sgd":
            reason += ", and no noise is added"
        return PrivacyStatement(algorithm=algorithm, guaranteed=False, reason=reason, epsilon=math.inf)
    if plan is None or not hasattr(plan.event, "in_words"):
        raise ValueError(
            f"`plan` must be a noisy_sgd.privacy.Plan whose event is the optimizer's mechanism. Received: plan={plan!r}"
        )
    record = ledger.Ledger(((0, 0),) if attempts is None else tuple(map(tuple, attempts))).covering(plan.num_steps)
    scheme, mechanism = plan.sampling, plan.event
    setting = {
        **mechanism.facts(),
        "clipping": checks.choice("clipping", clipping, tuple(_CLIPPING_IN_WORDS)),
        "batch_size": scheme.batch_size,
        "num_examples": scheme.num_examples,
        "num_steps": plan.num_steps,
        "delta": plan.delta,
        "sampling": scheme.name,
        "neighbors": plan.neighbors,
        "accountant": plan.accountant,
        "attempts": None if record.attempts == ((0, plan.num_steps),) else record.attempts,
        "capacity": getattr(scheme, "capacity", None),
    }
    spent = ledger.spent(record, plan)
    amplifiable = plan.independent_steps and not plan.amplified
    secret = ledger.spent(record, _with_secret_batches(plan)) if amplifiable else None
    reason = _reason_against(plan, explicit_noise_seed, spent)
    counted = plan.with_steps(ledger.counted_steps(record, scheme))
    return PrivacyStatement(
        algorithm=algorithm,
        guaranteed=reason is None,
        reason=reason,
        epsilon=math.inf if reason else spent,
        amplification=plan.amplified,
        described=_description(plan, counted, clipping, None if reason else spent),
        covers=None if reason else "the weights after every step, and what is computed from them without the data",
        assumes=() if reason else _assumptions(plan.amplified, setting["attempts"]),
        not_claimed=_not_claimed(mechanism, reason, spent, secret, _with_secret_batches(plan).sampling),
        warnings=_warnings(setting, math.inf if reason else spent),
        **setting,
    )


def _with_secret_batches(plan: plans.Plan) -> plans.Plan:
    """The same run with secret Poisson-sampled batches."""
    scheme = plan.sampling
    if not scheme.amplifies:
        scheme = sampling.Poisson(scheme.num_examples, scheme.batch_size)
    return dataclasses.replace(plan, sampling=scheme, batches_known=False)


def _description(plan: plans.Plan, counted: plans.Plan, clipping: str, spent: float | None) -> tuple[str, ...]:
    """What is claimed, sentence by sentence; nothing where no bound holds. `spent` is None without a guarantee."""
    mechanism, scheme = plan.event, plan.sampling
    if mechanism.facts()["l2_norm_clip"] == math.inf:
        return ()
    drawn = scheme.in_words(counted.num_steps, batches_known=plan.batches_known)
    overflow = counted.participation.overflow
    if overflow and spent is not None:
        added = truncation.delta_added(spent, overflow)
        drawn += f", and delta includes {added:.3g} for the chance that one was larger"
    return (
        f"Neighbors: {scheme.neighbors_in_words(plan.neighbors)}",
        f"Sampling: {drawn}",
        f"Mechanism: gradients {mechanism.in_words(_CLIPPING_IN_WORDS[clipping])}, divided by the batch size "
        f"{scheme.batch_size}; {plan.num_steps} steps",
        f"Accountant: {plan.accountant}",
    )


def _reason_against(plan: plans.Plan, explicit_noise_seed: bool, spent: float) -> str | None:
    """Why a DP-SGD run guarantees nothing, or None."""
    if plan.event.facts()["l2_norm_clip"] == math.inf:
        return f"the clip norm is infinite, so {_UNBOUNDED}"
    if plan.event.not_private is not None:
        return plan.event.not_private
    if explicit_noise_seed:
        return "the noise can be recomputed from its explicit seed and subtracted"
    if spent == math.inf:
        capacity = getattr(plan.sampling, "capacity", None)
        cut = "" if capacity is None else f", or batches too often larger than {capacity}"
        return f"the noise is too little{cut}, for any epsilon at delta = {plan.delta:g} (epsilon = infinity)"
    return None


def _assumptions(amplification: bool, attempts: tuple[tuple[int, int], ...] | None) -> tuple[str, ...]:
    """What must stay true for the guarantee to hold."""
    secret = "the noise key stays secret"
    if amplification:
        secret += ", and so does the key that decides who is in which batch"
    again = "the run ends after at most the steps above, and none of them is run again with other noise"
    if attempts is None:
        return (secret, again)
    own = "every step that was run again had a new noise key"
    if amplification:
        own += ", and a new key that decides who is in which batch"
    return (secret, f"{again} than is counted", own)


def _attempts_in_words(attempts: tuple[tuple[int, int], ...]) -> str:
    """Which steps may have been released, attempt by attempt."""
    parts = [f"steps {first} to {end - 1}" for first, end in attempts if first < end]
    return ", and again with other noise ".join(parts or ["no steps"]) + ", all that may have been released"


def _not_claimed(
    mechanism, reason: str | None, spent: float, with_secret_batches: float | None, amplifying: sampling.Scheme
) -> tuple[str, ...]:
    """The numbers and circumstances that a reader might wrongly take as covered."""
    if reason is not None:
        finite = mechanism.facts()["l2_norm_clip"] < math.inf and spent < math.inf
        return (
            (f"epsilon = {accounting.rounded_up(spent)}, which the same run would have with secret noise",)
            if finite
            else ()
        )
    if with_secret_batches is None or with_secret_batches >= spent:
        return _NOT_CLAIMED
    drawn = "Poisson sampling" if isinstance(amplifying, sampling.Poisson) else amplifying.name.replace("_", " ")
    needs = f"amplification by {drawn} with secret batches"
    return (f"epsilon = {accounting.rounded_up(with_secret_batches)}, which needs {needs}", *_NOT_CLAIMED)


def _warnings(setting: dict, spent: float) -> tuple[str, ...]:
    """What is formally correct but needs attention."""
    warnings = []
    if setting["delta"] >= 1 / setting["num_examples"]:
        warnings.append(
            f"delta = {setting['delta']:g} is not below 1 / num_examples = {1 / setting['num_examples']:g}: "
            "publishing one whole example at random would satisfy it"
        )
    if _LARGEST_MEANINGFUL_EPSILON < spent < math.inf:
        warnings.append(f"epsilon = {accounting.rounded_up(spent)} is too large to protect anybody")
    return tuple(warnings)


def _as_json(value: object) -> object:
    """Tuples as lists, infinity as a word."""
    if isinstance(value, tuple):
        return [_as_json(each) for each in value]
    return "infinity" if value == math.inf else value
