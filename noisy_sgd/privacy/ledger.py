"""What a run may have released, over all its attempts, and what that costs.

The ledger is written ahead: the current attempt covers steps before they are run. A run that is killed and replayed
exactly, with the same noise on the same gradients, releases nothing new. It stays in its attempt, and the ledger's text
does not change. A run that resumes in any other way would release other noise, or add the same noise to other
gradients. It starts a new attempt with new keys, and all that earlier attempts may have released stays counted.

    record = Ledger().covering(100)         # before steps 0 to 99
    record = record.restarted(60)           # from the checkpoint of step 60, with new keys
    record = record.covering(280)           # 100 + 220 steps are counted
    spent(record, plan)                    # a `noisy_sgd.privacy.Plan`

The sampling scheme decides how attempts add up:

- Poisson: every step of every attempt is one more sampled release. A new attempt must draw new batches as well as new
  noise: two releases on the same batch cost more than two on independent ones.
- Shuffled, cyclic and random allocation: an example takes part at most once in each epoch that an attempt touches, so
  the epochs of all attempts add up. An epoch is ceil(N / B) steps. An epoch that two attempts touch counts twice.

If the noise is correlated over steps, it is independent between attempts. Each attempt is then one release of its own,
with the sensitivity of its own steps, and the releases are composed.
"""

import dataclasses
import json
from collections.abc import Sequence

from noisy_sgd import checks, sampling
from noisy_sgd.privacy import calibration
from noisy_sgd.privacy import plan as plans

_FIELDS = ("attempt", "first_step", "end_step")


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The attempts of a run, each (first step, end step): steps first to end - 1 may have been released.

    Args:
        attempts: at least one, the current one last. Defaults to one attempt that has released nothing.
    """

    attempts: tuple[tuple[int, int], ...] = ((0, 0),)

    def __post_init__(self):
        reached = 0
        for first, end in self.attempts:
            checks.count("attempts", first, least=0)
            checks.count("attempts", end, least=0)
            if not 0 <= first <= min(end, reached):
                raise ValueError(
                    "`attempts` must each begin at a step that an earlier one reached, the first at 0, and not end "
                    f"before they begin. Received: attempts={self.attempts}"
                )
            reached = max(reached, end)
        if not self.attempts:
            raise ValueError("`attempts` must hold at least one attempt. Received: attempts=()")

    @property
    def attempt(self) -> int:
        """The number of the current attempt, from 1: a checkpoint of another attempt cannot be replayed exactly."""
        return len(self.attempts)

    def covering(self, end: int) -> "Ledger":
        """The ledger whose current attempt reaches step `end`; the same one if it already does."""
        end = checks.count("end", end, least=0)
        first, reached = self.attempts[-1]
        return self if end <= reached else Ledger((*self.attempts[:-1], (first, end)))

    def restarted(self, first_step: int) -> "Ledger":
        """The ledger with a new attempt from `first_step` on, for noise and batches from new keys.

        An attempt that has released nothing is replaced.

        Raises:
            ValueError: for a step that no attempt has reached: this is not the ledger of that checkpoint.
        """
        first_step = checks.count("first_step", first_step, least=0)
        reached = max(end for _, end in self.attempts)
        if first_step > reached:
            raise ValueError(
                f"`first_step` must be at most {reached}, which is as far as the ledger goes: a checkpoint beyond it "
                f"belongs to another ledger. Received: first_step={first_step}"
            )
        first, end = self.attempts[-1]
        earlier = self.attempts[:-1] if first == end else self.attempts
        return Ledger((*earlier, (first_step, first_step)))

    def to_text(self) -> str:
        """One JSON object per line, one line per attempt."""
        return "".join(
            json.dumps(dict(zip(_FIELDS, (number, *steps), strict=True))) + "\n"
            for number, steps in enumerate(self.attempts, start=1)
        )


def from_text(text: str) -> Ledger:
    """The ledger that `to_text` wrote.

    Raises:
        ValueError: for any other text.
    """
    try:
        rows = [[json.loads(line)[name] for name in _FIELDS] for line in text.splitlines()]
        ledger = Ledger(tuple((first, end) for _, first, end in rows))
        whole = ledger.to_text() == text
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(
            f"`text` must be a ledger, one JSON object with {', '.join(_FIELDS)} per line. "
            f"Received: text={text[:200]!r}"
        )
    return ledger


def furthest(copies: Sequence[Ledger]) -> Ledger:
    """The copy that covers most, of several copies of one ledger, some of which may be out of date.

    Args:
        copies: at least one.

    Raises:
        ValueError: if the copies are not states of one ledger at different times.
    """
    last = max(copies, key=lambda copy: (sum(end - first for first, end in copy.attempts), copy.attempt))
    strange = [copy for copy in copies if not _led_to(copy, last)]
    if strange:
        raise ValueError(
            "`copies` must be one ledger at different times, but each of two has steps that the other does not have. "
            f"Received: attempts={strange[0].attempts} and {last.attempts}"
        )
    return last


def counted_steps(ledger: Ledger, scheme: sampling.Scheme) -> int:
    """The number of steps of an unbroken run that costs the same.

    Args:
        ledger: what may have been released.
        scheme: how the batches are drawn, with new keys in every attempt.

    Returns:
        A number of steps for a plan, and to compare with `calibration.most_steps`.
    """
    return sum(scheme.counted_steps(first, end) for first, end in ledger.attempts)


def last_end(ledger: Ledger, num_steps: int, scheme: sampling.Scheme) -> int:
    """The last step that the current attempt may reach, so that at most `num_steps` steps are counted.

    Args:
        ledger: what may have been released.
        num_steps: the budget in steps, from `calibration.most_steps`.
        scheme: as in `counted_steps`.

    Returns:
        The largest `end` for which `counted_steps(ledger.covering(end), scheme)` is at most `num_steps`; the first step
        of the attempt if there is none beyond it.

    Raises:
        ValueError: for a negative number of steps.
    """
    first, _ = ledger.attempts[-1]
    earlier = sum(scheme.counted_steps(*steps) for steps in ledger.attempts[:-1])
    return scheme.last_end(first, checks.count("num_steps", num_steps, least=0) - earlier)


def end_within(ledger: Ledger, epsilon: float, plan: plans.Plan) -> int:
    """The last step that the current attempt may reach within a budget; its first step if there is none beyond it.

    Args:
        ledger: what may have been released.
        epsilon: the budget, above 0.
        plan: the run; its number of steps is not used.
    """
    if plan.independent_steps:
        return last_end(ledger, calibration.most_steps(epsilon, plan), plan.sampling)
    first, _ = ledger.attempts[-1]
    earlier = [plan.sampling.counted_steps(*steps) for steps in ledger.attempts[:-1]]
    return plan.sampling.last_end(first, calibration.most_steps(epsilon, plan.with_attempts([*earlier, 0])))


def priced(ledger: Ledger, plan: plans.Plan) -> plans.Plan:
    """The plan of everything that may have been released.

    Args:
        ledger: what may have been released.
        plan: the run; its number of steps is not used.
    """
    return plan.with_attempts([plan.sampling.counted_steps(*steps) for steps in ledger.attempts])


def spent(ledger: Ledger, plan: plans.Plan) -> float:
    """Epsilon of everything that may have been released.

    Args:
        ledger: what may have been released.
        plan: the run; its number of steps is not used.

    Returns:
        Epsilon, never too low.
    """
    return priced(ledger, plan).epsilon


def _led_to(earlier: Ledger, later: Ledger) -> bool:
    """Whether everything that one ledger counts as released is counted by the other, too."""
    *before, (first, end) = [steps for steps in earlier.attempts if steps[0] < steps[1]] or [(0, 0)]
    number = len(before)
    if first == end:
        return True
    if len(later.attempts) <= number or list(later.attempts[:number]) != before:
        return False
    return later.attempts[number][0] == first and end <= later.attempts[number][1]
