"""What a run may and may not claim about privacy, in words before it trains and as a record afterwards.

The statement is a pure function of how the run is set up. It names the guarantee with everything it depends on, then
what is not claimed, because a bare epsilon is read as more than it says. Only DP-SGD has a guarantee; that of
Noisy-SGD (eq. 11 of arXiv 2402.08344) would need a bound on one example's gradient, which nothing provides.

    run = dict(noise_multiplier=1.0, l2_norm_clip=1.0, batch_size=64, num_examples=1797, num_steps=280, delta=1e-5)
    made = statement("dp_sgd", **run)
    print(made.text)
    json.dumps(made.as_dict(), allow_nan=False)
"""

import dataclasses
import math
from collections.abc import Sequence

from noisy_sgd.privacy import accounting, arguments, ledger, truncation

ALGORITHMS = ("sgd", "noisy_sgd", "dp_sgd")
UNIT = "one training example"

_NOT_CLAIMED = (
    "the choice of hyper-parameters, where results on these data guided it",
    "preprocessing computed from these data, such as their mean or their vocabulary",
    "the number of examples, which is treated as public",
    "whatever is read from the data without noise: training loss and accuracy, gradient norms, the fraction clipped; "
    "how long a step takes, which tells how many examples a Poisson batch had; and checkpoints, which hold the noise "
    "key",
    "other runs on the same data, such as those of other seeds: all that they release together costs more",
    "several examples of the same person: together they are protected less",
    "attacks on floating-point arithmetic or on the pseudo-random generator: the noise is accounted for as exact and "
    "truly random",
)
_UNBOUNDED = "one example can move the weights without bound (unbounded sensitivity, epsilon = infinity)"
_ACCOUNTED = ("batch_size", "num_examples", "delta", "sampling", "neighbours", "accountant")
# Above this, an adversary's odds may grow by more than e^20: the number is correct and protects nobody.
_LARGEST_MEANINGFUL_EPSILON = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """One run's claim; without a guarantee `reason` says why and `epsilon` is infinity, with one `reason` is None."""

    algorithm: str
    guaranteed: bool
    reason: str | None
    epsilon: float
    delta: float | None = None
    unit: str = UNIT
    neighbours: str | None = None
    sampling: str | None = None
    amplification: bool | None = None
    accountant: str | None = None
    noise_multiplier: float | None = None
    count_noise_multiplier: float | None = None
    l2_norm_clip: float | None = None
    clipping: str | None = None
    batch_size: int | None = None
    num_examples: int | None = None
    num_steps: int | None = None
    attempts: tuple[tuple[int, int], ...] | None = None
    capacity: int | None = None
    covers: str | None = None
    assumes: tuple[str, ...] = ()
    not_claimed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The statement in plain words, several lines, without a final newline."""
        lines = [f"Privacy of this run ({self.algorithm})"]
        if self.guaranteed:
            lines.append(
                f"Guaranteed: ({_rounded_up(self.epsilon)}, {self.delta:g})-differential privacy of {self.unit}."
            )
        else:
            lines.append(f"No privacy guarantee: {self.reason}.")
        if self.l2_norm_clip is not None and self.l2_norm_clip < math.inf:
            lines += [
                f"  Neighbours: {_NEIGHBOURS_IN_WORDS[self.neighbours, self.sampling]}.",
                f"  Sampling: {self._sampling_in_words()}.",
                f"  Mechanism: gradients {self._clip_in_words()}, summed, Gaussian noise of "
                f"{self.noise_multiplier:g} times that norm (the noise multiplier), divided by the batch size "
                f"{self.batch_size}; {self.num_steps} steps.",
                f"  Accountant: {self.accountant}.",
            ]
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

    def _clip_in_words(self) -> str:
        """The bound on every gradient."""
        if self.count_noise_multiplier is None:
            return f"{_CLIPPING_IN_WORDS[self.clipping]} {self.l2_norm_clip:g}"
        return (
            f"clipped to a norm that is {self.l2_norm_clip:g} at first and then learned from a count of the gradients "
            f"within it, with Gaussian noise of noise multiplier {self.count_noise_multiplier:g}, which is accounted "
            "for as well"
        )

    def _counted_steps(self) -> int:
        """How many steps an unbroken run would have that costs the same."""
        record = ledger.Ledger(self.attempts or ((0, self.num_steps),))
        return ledger.counted_steps(record, self.batch_size, self.num_examples, self.sampling)

    def _sampling_in_words(self) -> str:
        """How batches are drawn, and what the accounting makes of it."""
        if self.sampling == "shuffled":
            epochs = accounting.epochs_started(self.batch_size, self.num_examples, self._counted_steps())
            return (
                "shuffled batches of fixed size, without amplification: an example takes part at most once in each of "
                f"{epochs} epochs started"
            )
        probability = self.batch_size / self.num_examples
        said = f"Poisson, each of {self.num_examples} examples with probability {probability:g} at each step"
        if not self.amplification:
            return f"{said}, from a known seed and so without amplification: counted in every step"
        if self.capacity is not None:
            said += f"; batches are cut off at {self.capacity} examples"
            if self.guaranteed:
                overflow = truncation.overflow_probability(self.batch_size, self.num_examples, self.capacity)
                added = truncation.delta_added(self.epsilon, self._counted_steps() * overflow)
                said += f", and delta includes {added:.3g} for the chance that one was larger"
        return said


_CLIPPING_IN_WORDS = {
    "flat": "clipped to norm",
    "automatic": "scaled to just below norm",
    "normalized": "scaled to norm",
    "per_layer": "clipped layer by layer, to bounds that together make norm",
}
_NEIGHBOURS_IN_WORDS = {
    (
        "add_or_remove",
        "poisson",
    ): "data sets of which one lacks one example, the others keeping their numbers (add_or_remove)",
    (
        "add_or_remove",
        "shuffled",
    ): "data sets of which one lacks one example's contribution, its place in the order left empty (add_or_remove)",
    ("replace_one", "poisson"): "data sets that differ by one example replaced (replace_one)",
    ("replace_one", "shuffled"): "data sets that differ by one example replaced (replace_one)",
}


def statement(
    algorithm: str,
    *,
    noise_multiplier: float | None = None,
    count_noise_multiplier: float | None = None,
    l2_norm_clip: float | None = None,
    clipping: str = "flat",
    batch_size: int | None = None,
    num_examples: int | None = None,
    num_steps: int | None = None,
    delta: float | None = None,
    sampling: str = "shuffled",
    neighbours: str = "add_or_remove",
    accountant: str = "pld",
    explicit_noise_seed: bool = False,
    explicit_inclusion_seed: bool = False,
    attempts: Sequence[tuple[int, int]] | None = None,
    capacity: int | None = None,
) -> PrivacyStatement:
    """The privacy statement of a run.

    All arguments but the first are for "dp_sgd", which needs each one whose default is None, but for
    `count_noise_multiplier`, `attempts` and `capacity`; the others ignore them.

    Args:
        algorithm: "sgd", "noisy_sgd" or "dp_sgd".
        noise_multiplier: standard deviation of the noise on the sum of clipped gradients, in clip norms.
        count_noise_multiplier: where adaptive clipping learns the clip norm, the noise multiplier of the count that it
            learns from (twice its standard deviation). Defaults to None, a clip norm that stays.
        l2_norm_clip: the clip norm C, where it is learned that of the first step; may be infinity, and then nothing is
            guaranteed.
        clipping: how a gradient is brought within C, "flat", "automatic", "normalized" or "per_layer" (see
            `noisy_sgd.clipped_gradient_sum`): all bound it by C, so that none changes epsilon. Defaults to "flat".
        batch_size: the nominal batch size.
        num_examples: number of training examples.
        num_steps: number of steps that the run is going to take, or took.
        delta: in (0, 1); a warning is added where it is not below 1 / num_examples.
        sampling: the sampling actually used, "shuffled" or "poisson". Defaults to "shuffled".
        neighbours: "add_or_remove" or "replace_one". Defaults to "add_or_remove".
        accountant: "pld" or "rdp". Defaults to "pld".
        explicit_noise_seed: whether the noise key comes from a seed that somebody chose or recorded. Defaults to False.
        explicit_inclusion_seed: whether, under Poisson sampling, the batches come from a seed that somebody chose or
            recorded: no amplification is claimed then. Defaults to False.
        attempts: `Ledger.attempts` of a run that was resumed: epsilon is that of all they cover, and of the current one
            going on to `num_steps`. Defaults to None, one unbroken run of `num_steps`.
        capacity: where Poisson batches are cut off at so many examples; a part of delta pays for that. Defaults to
            None, batches of any size.

    Returns:
        The statement.

    Raises:
        ValueError: for an unknown algorithm, or for "dp_sgd" with an argument missing or out of its range.
    """
    arguments.choice("algorithm", algorithm, ALGORITHMS)
    if algorithm != "dp_sgd":
        reason = f"nothing is clipped, so {_UNBOUNDED}"
        if algorithm == "sgd":
            reason += ", and no noise is added"
        return PrivacyStatement(algorithm=algorithm, guaranteed=False, reason=reason, epsilon=math.inf)
    noise_multiplier = arguments.real("noise_multiplier", noise_multiplier, least=0)
    joint = noise_multiplier
    if count_noise_multiplier is not None:
        count_noise_multiplier = arguments.real("count_noise_multiplier", count_noise_multiplier, least=0)
        joint = accounting.joint_noise_multiplier(noise_multiplier, count_noise_multiplier)
    num_steps = arguments.count("num_steps", num_steps, least=0)
    record = ledger.Ledger(((0, 0),) if attempts is None else tuple(map(tuple, attempts))).covering(num_steps)
    setting = {
        "noise_multiplier": noise_multiplier,
        "count_noise_multiplier": count_noise_multiplier,
        "l2_norm_clip": math.inf if l2_norm_clip == math.inf else arguments.real("l2_norm_clip", l2_norm_clip, above=0),
        "clipping": arguments.choice("clipping", clipping, tuple(_CLIPPING_IN_WORDS)),
        "batch_size": batch_size,
        "num_examples": num_examples,
        "num_steps": num_steps,
        "delta": delta,
        "sampling": sampling,
        "neighbours": neighbours,
        "accountant": accountant,
        "attempts": None if record.attempts == ((0, num_steps),) else record.attempts,
        "capacity": capacity,
    }
    accounted = {name: value for name, value in setting.items() if name in _ACCOUNTED} | {"noise_multiplier": joint}
    with_poisson = ledger.spent(record, **{**accounted, "sampling": "poisson", "capacity": capacity})
    amplification = sampling == "poisson" and not explicit_inclusion_seed
    if amplification:
        spent = with_poisson
    elif sampling == "poisson":
        # Whoever knows the batches gains nothing from their randomness: at worst the example is in all of them.
        spent = ledger.spent(record, **{**accounted, "sampling": "shuffled", "batch_size": num_examples})
    else:
        spent = ledger.spent(record, **accounted, capacity=capacity)
    reason = _reason_against(setting, explicit_noise_seed, spent)
    return PrivacyStatement(
        algorithm=algorithm,
        guaranteed=reason is None,
        reason=reason,
        epsilon=math.inf if reason else spent,
        amplification=amplification,
        covers=None if reason else "the weights after every step, and what is computed from them without the data",
        assumes=() if reason else _assumptions(amplification, setting["attempts"]),
        not_claimed=_not_claimed(setting, reason, spent, None if amplification else with_poisson),
        warnings=_warnings(setting, math.inf if reason else spent),
        **setting,
    )


def _reason_against(setting: dict, explicit_noise_seed: bool, spent: float) -> str | None:
    """Why a DP-SGD run guarantees nothing, or None."""
    if setting["l2_norm_clip"] == math.inf:
        return f"the clip norm is infinite, so {_UNBOUNDED}"
    if setting["noise_multiplier"] == 0:
        return "no noise is added (epsilon = infinity)"
    if setting["count_noise_multiplier"] == 0:
        return "no noise is added to the count that the clip norm is learned from (epsilon = infinity)"
    if explicit_noise_seed:
        return "the noise can be recomputed from its explicit seed and subtracted"
    if spent == math.inf:
        cut = "" if setting["capacity"] is None else f", or batches too often larger than {setting['capacity']}"
        return f"the noise is too little{cut}, for any epsilon at delta = {setting['delta']:g} (epsilon = infinity)"
    return None


def _assumptions(amplification: bool, attempts: tuple[tuple[int, int], ...] | None) -> tuple[str, ...]:
    """What must stay true for the guarantee to hold."""
    secret = "the noise key stays secret"
    if amplification:
        secret += ", and so does the key that decides who is in which batch"
    again = "the run ends after at most the steps above, and none of them is run again with other noise"
    if attempts is None:
        return (secret, again)
    own = "whatever was run again had a noise key of its own"
    if amplification:
        own += ", and a key of its own that decides who is in which batch"
    return (secret, f"{again} than is counted", own)


def _attempts_in_words(attempts: tuple[tuple[int, int], ...]) -> str:
    """Which steps may have been released, attempt by attempt."""
    parts = [f"steps {first} to {end - 1}" for first, end in attempts if first < end]
    return ", and again with other noise ".join(parts or ["no steps"]) + ", all that may have been released"


def _not_claimed(setting: dict, reason: str | None, spent: float, with_poisson: float | None) -> tuple[str, ...]:
    """The numbers and circumstances that a reader might wrongly take as covered."""
    if reason is not None:
        finite = setting["l2_norm_clip"] < math.inf and spent < math.inf
        return (f"epsilon = {_rounded_up(spent)}, which the same run would have with secret noise",) if finite else ()
    if with_poisson is None or with_poisson >= spent:
        return _NOT_CLAIMED
    return (
        f"epsilon = {_rounded_up(with_poisson)}, which needs amplification by Poisson sampling with secret batches",
        *_NOT_CLAIMED,
    )


def _warnings(setting: dict, spent: float) -> tuple[str, ...]:
    """What is formally in order and still deserves a second look."""
    found = []
    if setting["delta"] >= 1 / setting["num_examples"]:
        found.append(
            f"delta = {setting['delta']:g} is not below 1 / num_examples = {1 / setting['num_examples']:g}: "
            "publishing one whole example at random would satisfy it"
        )
    if _LARGEST_MEANINGFUL_EPSILON < spent < math.inf:
        found.append(f"epsilon = {_rounded_up(spent)} is too large to protect anybody")
    return tuple(found)


def _rounded_up(epsilon: float) -> str:
    """Four significant digits, never below the number itself."""
    if epsilon in (0, math.inf):
        return "infinity" if epsilon else "0"
    shift = 3 - math.floor(math.log10(epsilon))
    return f"{float(f'{math.ceil(epsilon * 10.0**shift - 1e-9)}e{-shift}'):g}"


def _as_json(value: object) -> object:
    """Tuples as lists, infinity as a word."""
    if isinstance(value, tuple):
        return [_as_json(each) for each in value]
    return "infinity" if value == math.inf else value
