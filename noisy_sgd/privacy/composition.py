"""What several trainings on the same data cost together: pre-training and fine-tuning, or the tries of a search.

Whoever sees all their results learns more than from one of them. Under one delta the runs are composed as one event,
by PLD or RDP. Each run may depend on the results of those before it. Basic composition is the other bound: at the sum
of the deltas, the sum of the epsilons. The smaller of the two is taken.

    pre_training = noisy_sgd.privacy.Plan(event=optimizer.mechanism, sampling=scheme, num_steps=1_000, delta=1e-6)
    together = noisy_sgd.privacy.composed([pre_training, budget.plan], delta=2e-6)
    together.epsilon, together.text
    noisy_sgd.privacy.composed([plan] * 20).epsilon       # twenty tries, at twenty times the plan's delta

What one run costs over its attempts is the ledger's question (`noisy_sgd.privacy.ledger`). The runs must have noise
keys of their own: two runs with the same noise cancel it in their difference.
"""

import dataclasses
import math
from collections.abc import Iterable

import dp_accounting

from noisy_sgd import checks
from noisy_sgd.privacy import accounting, truncation
from noisy_sgd.privacy import plan as plans


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composition:
    """Several runs together; `epsilon` is an upper bound at `delta`, infinity where there is no guarantee."""

    epsilon: float
    delta: float
    num_runs: int
    neighbors: str

    @property
    def text(self) -> str:
        """The composition in one line."""
        return (
            f"epsilon = {accounting.rounded_up(self.epsilon)} at delta = {self.delta:g} ({self.neighbors}) for all "
            f"{self.num_runs} runs together"
        )


def composed(runs: Iterable[plans.Plan], delta: float | None = None) -> Composition:
    """The cost of all runs together.

    Args:
        runs: a `noisy_sgd.privacy.Plan` per run, or what has a `plan`, such as a `noisy_sgd.PrivacyBudget` after its
            training. Their data may overlap in any way.
        delta: of all runs together. Defaults to None, the sum of the plans' deltas.

    Returns:
        The composition, by the best of the plans' accountants.

    Raises:
        ValueError: for no run, a run that is not a plan, runs with different `neighbors`, or a delta out of (0, 1).
    """
    found = [_plan(run) for run in runs]
    if not found:
        raise ValueError("`runs` must hold at least one run. Received: runs=[]")
    relations = sorted({plan.neighbors for plan in found})
    if len(relations) > 1:
        raise ValueError(
            "`runs` must have the same `neighbors`; dataclasses.replace(plan, neighbors=...) changes them. "
            f"Received: neighbors={' and '.join(relations)}"
        )
    total = math.fsum(plan.delta for plan in found)
    delta = total if delta is None else delta
    if delta >= 1 and delta == total:
        raise ValueError(
            "`delta` must be below 1, and the deltas of the runs add up to more: choose one for all runs, such as "
            f"{min(plan.delta for plan in found):g}. Received: delta={delta:g}"
        )
    delta = checks.real("delta", delta, above=0, below=1)
    bounds = [_jointly(found, delta)]
    if total <= delta:
        bounds.append(math.fsum(plan.epsilon for plan in found))
    return Composition(epsilon=min(bounds), delta=delta, num_runs=len(found), neighbors=relations[0])


def _plan(run) -> plans.Plan:
    plan = run if isinstance(run, plans.Plan) else getattr(run, "plan", None)
    if not isinstance(plan, plans.Plan):
        raise ValueError(
            "`runs` must hold plans, or budgets of trainings that have begun, whose `plan` is not None. "
            f"Received: {type(run).__name__}"
        )
    return plan


def _jointly(found: list[plans.Plan], delta: float) -> float:
    """Epsilon of the runs as one event; the probabilities that a run differs from its event add up."""
    events = [plan.event_of_run for plan in found]
    distinct = [event for place, event in enumerate(events) if event not in events[:place]]
    event = dp_accounting.ComposedDpEvent(
        [dp_accounting.SelfComposedDpEvent(event, events.count(event)) for event in distinct]
    )
    accountant = "pld" if any(plan.accountant == "pld" for plan in found) else "rdp"
    return truncation.epsilon_within(
        lambda left: accounting.epsilon_of_event(event, left, accountant, found[0].neighbors),
        delta,
        math.fsum(plan.participation.overflow for plan in found),
    )
