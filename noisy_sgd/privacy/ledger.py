"""What a run may have released, over all its attempts, and what that costs.

The ledger is written ahead: before steps are run, the current attempt is made to cover them. A run that is killed and
replays itself exactly, with the same noise on the same gradients, releases nothing new: it stays in its attempt, and
the text stays what it was. Whatever else a run resumes with would put other noise, or the same noise, on other
gradients: that is a new attempt with new keys, and what the earlier ones may have released stays counted.

    record = Ledger().covering(100)         # before steps 0 to 99
    record = record.restarted(60)           # from the checkpoint of step 60, with new keys
    record = record.covering(280)           # 100 + 220 steps are counted
    spent(record, noise_multiplier=4.0, batch_size=64, num_examples=1797, delta=1e-5, sampling="poisson")

How attempts add up:

- `sampling="poisson"`: every step of every attempt is one more sampled Gaussian. A new attempt must draw new batches as
  well as new noise: two releases on the same batch cost more than two on independent ones.
- `sampling="shuffled"`: an example takes part at most once in each epoch that an attempt touches, so the epochs of all
  attempts add up. An epoch is ceil(N / B) steps, and one that two attempts touch counts twice.
"""

import dataclasses
import json
from collections.abc import Sequence

from noisy_sgd.privacy import accounting, arguments

_FIELDS = ("attempt", "first_step", "end_step")


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The attempts of a run, each (first step, end step): steps first to end - 1 may have been released.

    Args:
        attempts: at least one, the current one last. Defaults to one that has released nothing.
    """

    attempts: tuple[tuple[int, int], ...] = ((0, 0),)

    def __post_init__(self):
        reached = 0
        for first, end in self.attempts:
            arguments.count("attempts", first, least=0)
            arguments.count("attempts", end, least=0)
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
        """The number of the current attempt, from 1: a checkpoint of another one cannot be replayed exactly."""
        return len(self.attempts)

    def covering(self, end: int) -> "Ledger":
        """The ledger whose current attempt reaches step `end`; the same one if it already does."""
        end = arguments.count("end", end, least=0)
        first, reached = self.attempts[-1]
        return self if end <= reached else Ledger((*self.attempts[:-1], (first, end)))

    def restarted(self, first_step: int) -> "Ledger":
        """The ledger with a new attempt from `first_step` on, for noise and batches from new keys.

        An attempt that has released nothing is replaced.

        Raises:
            ValueError: for a step that no attempt has reached: then this is not the ledger of that checkpoint.
        """
        first_step = arguments.count("first_step", first_step, least=0)
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
        """One JSON object a line, one line an attempt."""
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
        made = Ledger(tuple((first, end) for _, first, end in rows))
        whole = made.to_text() == text
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(
            f"`text` must be a ledger, one JSON object with {', '.join(_FIELDS)} a line. Received: text={text[:200]!r}"
        )
    return made


def furthest(copies: Sequence[Ledger]) -> Ledger:
    """Of several copies of one ledger, which need not all have been written last, the one that knows most.

    Args:
        copies: at least one.

    Raises:
        ValueError: for ledgers that are not states of one and the same, at different times.
    """
    last = max(copies, key=lambda copy: (sum(end - first for first, end in copy.attempts), copy.attempt))
    strange = [copy for copy in copies if not _led_to(copy, last)]
    if strange:
        raise ValueError(
            "`copies` must be one ledger at different times, but each of two tells of steps that the other does not. "
            f"Received: attempts={strange[0].attempts} and {last.attempts}"
        )
    return last


def counted_steps(ledger: Ledger, batch_size: int, num_examples: int, sampling: str) -> int:
    """How many steps an unbroken run would have that costs the same.

    Args:
        ledger: what may have been released.
        batch_size: nominal batch size B.
        num_examples: number of training examples N.
        sampling: "poisson" or "shuffled"; the latter counts whole epochs.

    Returns:
        A number for `accounting.epsilon`, and to compare with `calibration.steps_for`.

    Raises:
        ValueError: for an argument out of its range.
    """
    return sum(_counted(first, end, batch_size, num_examples, sampling) for first, end in ledger.attempts)


def last_end(ledger: Ledger, num_steps: int, batch_size: int, num_examples: int, sampling: str) -> int:
    """How far the current attempt may go, so that at most `num_steps` steps are counted.

    Args:
        ledger: what may have been released.
        num_steps: the budget in steps, from `calibration.steps_for`.
        batch_size: as in `counted_steps`.
        num_examples: as in `counted_steps`.
        sampling: as in `counted_steps`.

    Returns:
        The largest `end` for which `counted_steps(ledger.covering(end), ...)` is at most `num_steps`; the first step of
        the attempt if there is none beyond it.

    Raises:
        ValueError: for an argument out of its range.
    """
    first, _ = ledger.attempts[-1]
    earlier = sum(_counted(*steps, batch_size, num_examples, sampling) for steps in ledger.attempts[:-1])
    left = arguments.count("num_steps", num_steps, least=0) - earlier
    if sampling == "shuffled":
        stride = accounting.steps_per_epoch(batch_size, num_examples)
        return max(first, (first // stride + left // stride) * stride)
    return first + max(0, left)


def spent(
    ledger: Ledger,
    *,
    noise_multiplier: float,
    batch_size: int,
    num_examples: int,
    delta: float,
    sampling: str,
    accountant: str = "pld",
    neighbours: str = "add_or_remove",
    capacity: int | None = None,
) -> float:
    """Epsilon of everything that may have been released.

    Args:
        ledger: what may have been released.
        noise_multiplier: as in `accounting.epsilon`, like all that follow; for a learned clip norm the joint one.
        batch_size: B.
        num_examples: N.
        delta: in (0, 1).
        sampling: "poisson" or "shuffled".
        accountant: "pld" or "rdp". Defaults to "pld".
        neighbours: "add_or_remove" or "replace_one". Defaults to "add_or_remove".
        capacity: where Poisson batches are cut off. Defaults to None, nowhere.

    Returns:
        Epsilon, never too low.

    Raises:
        ValueError: for an argument out of its range.
    """
    num_steps = counted_steps(ledger, batch_size, num_examples, sampling)
    return accounting.epsilon(
        noise_multiplier,
        batch_size,
        num_examples,
        num_steps,
        delta,
        sampling=sampling,
        accountant=accountant,
        neighbours=neighbours,
        capacity=capacity,
    )


def _led_to(earlier: Ledger, later: Ledger) -> bool:
    """Whether all that the one says may have been released is what the other says too."""
    *before, (first, end) = [steps for steps in earlier.attempts if steps[0] < steps[1]] or [(0, 0)]
    number = len(before)
    if first == end:
        return True
    if len(later.attempts) <= number or list(later.attempts[:number]) != before:
        return False
    return later.attempts[number][0] == first and end <= later.attempts[number][1]


def _counted(first: int, end: int, batch_size: int, num_examples: int, sampling: str) -> int:
    """The steps that one attempt counts for."""
    arguments.choice("sampling", sampling, accounting.SAMPLINGS)
    if sampling == "poisson" or first == end:
        return end - first
    stride = accounting.steps_per_epoch(batch_size, num_examples)
    return (-(-end // stride) - first // stride) * stride
