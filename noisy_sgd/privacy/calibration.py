"""How much noise, or how many steps, a privacy budget buys: the inverses of a plan's epsilon.

RDP, which is cheap, brackets the answer. Then the chosen accountant is asked at a few points. Every returned value has
been accounted for and is within the budget.

    noise_multiplier_for(8.0, 16384, 1281167, 72000, 8e-7, sampling="poisson")    # the smallest noise with epsilon <= 8
    steps_for(8.0, 2.5, 16384, 1281167, 8e-7, sampling="poisson")                 # the most steps with epsilon <= 8
    most_steps(8.0, plan)                                                         # the same for any plan
"""

import math
from collections.abc import Callable

from noisy_sgd import checks
from noisy_sgd.privacy import accounting
from noisy_sgd.privacy import plan as plans

LARGEST_NUM_STEPS = 10**6
LARGEST_NOISE_MULTIPLIER = 2.0**20
# The usual ratio of the noise that PLD asks for to that of RDP: where the search by PLD begins.
_PLD_OVER_RDP = 0.93


def noise_multiplier_for(
    epsilon: float,
    batch_size: int,
    num_examples: int,
    num_steps: int,
    delta: float,
    *,
    sampling: str,
    accountant: str = "pld",
    neighbors: str = "add_or_remove",
    noise=None,
) -> float:
    """The smallest noise multiplier that keeps `privacy.epsilon` at or below `epsilon`, rounded up in its fifth digit.

    Args:
        epsilon: the budget, above 0.
        batch_size: as in `privacy.epsilon`, like all that follow.
        num_examples: N.
        num_steps: number of noisy steps; 0 steps need no noise.
        delta: in (0, 1).
        sampling: "poisson", "random_allocation", "shuffled" or "cyclic"; Keras' `fit` shuffles unless told otherwise.
        accountant: "pld" or "rdp". Defaults to "pld".
        neighbors: "add_or_remove" or "replace_one". Defaults to "add_or_remove".
        noise: a `noisy_sgd.CorrelatedNoise`, for sampling="cyclic". Defaults to None, independent noise.

    Returns:
        A noise multiplier of five significant digits whose epsilon is within the budget.

    Raises:
        ValueError: for an argument out of its range, or an epsilon that is out of reach of any noise multiplier up to
            `LARGEST_NOISE_MULTIPLIER`.
    """

    def plan_of(noise_multiplier: float) -> plans.Plan:
        return plans.gaussian(
            noise_multiplier,
            batch_size,
            num_examples,
            num_steps,
            delta,
            sampling=sampling,
            accountant=accountant,
            neighbors=neighbors,
            noise=noise,
        )

    return least_noise(epsilon, plan_of)


def least_noise(epsilon: float, plan_of: Callable[[float], plans.Plan], *, digits: int = 5, near: float = 1.0) -> float:
    """The smallest noise multiplier with which a plan's epsilon is within a budget, rounded up in its last digit.

    Args:
        epsilon: the budget, above 0.
        plan_of: the plan of a noise multiplier, whose epsilon falls as the multiplier grows.
        digits: number of significant digits. Defaults to 5.
        near: where the search begins, such as the answer for similar settings, which makes it faster. Defaults to 1.

    Raises:
        ValueError: for an epsilon that is out of reach of `LARGEST_NOISE_MULTIPLIER`.
    """
    epsilon = checks.real("epsilon", epsilon, above=0)
    chosen = plan_of(0.0)
    if chosen.epsilon <= epsilon:
        return 0.0
    first = reaching_accountant(epsilon, plan_of)

    def spent(noise_multiplier: float, accountant: str) -> float:
        return plan_of(noise_multiplier).by(accountant).epsilon

    enough = checks.real("near", near, above=0)
    while spent(enough, first) > epsilon:
        enough *= 2
    while spent(enough / 2, first) <= epsilon:
        enough /= 2
    # Multiples of the unit, a few digits below `enough`, are decimals that print exactly.
    shift = digits - 1 - math.floor(math.log10(enough))

    def multiplier(units: int) -> float:
        return float(f"{units}e{-shift}")

    def first_spent(units: int) -> float:
        return spent(multiplier(units), first)

    def chosen_spent(units: int) -> float:
        return spent(multiplier(units), chosen.accountant)

    # From here on, the noise is in units.
    ends = math.floor(enough / 2 * 10.0**shift), math.ceil(enough * 10.0**shift)
    known = spent(enough / 2, first), spent(enough, first)
    if first == chosen.accountant:
        units = _first_within(chosen_spent, epsilon, *ends, known=known)
    else:
        units = _first_within(first_spent, epsilon, *ends, known=known, share=0.02)
        units = _first_within(chosen_spent, epsilon, 0, units, guess=math.ceil(_PLD_OVER_RDP * units))
    while units < 10 ** (digits - 1) / 2:
        # Near its floor, RDP asks for a multiple of the noise, and the unit is too large.
        shift += 1
        units = _first_within(chosen_spent, epsilon, 10 * (units - 1), 10 * units)
    return multiplier(units)


def reaching_accountant(epsilon: float, plan_of: Callable[[float], plans.Plan]) -> str:
    """The accountant to begin with: RDP, or the plan's own where RDP's floor, whatever the noise, is above the budget.

    Raises:
        ValueError: for an epsilon that is out of reach of `LARGEST_NOISE_MULTIPLIER`, with the nearest possible one.
    """
    loudest = plan_of(LARGEST_NOISE_MULTIPLIER)
    for name in ("rdp", loudest.accountant):
        if loudest.by(name).epsilon <= epsilon:
            return name
    raise _out_of_reach(epsilon, loudest)


def _out_of_reach(epsilon: float, plan: plans.Plan) -> ValueError:
    """The refusal of an epsilon, from the plan with the largest noise."""
    noise = f"the largest noise multiplier, {LARGEST_NOISE_MULTIPLIER:g}"
    if plan.epsilon == math.inf:
        return ValueError(
            f"`delta` must be larger for a guarantee: batches are cut off too often for {plan.delta:g}, even with "
            f"{noise}; raise it, or the capacity. Received: epsilon={epsilon!r}, delta={plan.delta!r}"
        )
    return ValueError(
        f"`epsilon` must be at least {accounting.rounded_up(plan.epsilon)}, which {plan.num_steps} steps cost at delta "
        f"= {plan.delta:g} with {noise}; raise it, or take fewer steps or a larger delta. Received: epsilon={epsilon!r}"
    )


def steps_for(
    epsilon: float,
    noise_multiplier: float,
    batch_size: int,
    num_examples: int,
    delta: float,
    *,
    sampling: str,
    accountant: str = "pld",
    neighbors: str = "add_or_remove",
    capacity: int | None = None,
    noise=None,
) -> int:
    """The largest number of steps that keeps `privacy.epsilon` at or below `epsilon`.

    Args:
        epsilon: the budget, above 0.
        noise_multiplier: as in `privacy.epsilon`, like all that follow.
        batch_size: B.
        num_examples: N.
        delta: in (0, 1).
        sampling: "poisson"; or "random_allocation", "shuffled" or "cyclic", which count whole epochs: a started epoch
            is spent.
        accountant: "pld" or "rdp". Defaults to "pld".
        neighbors: "add_or_remove" or "replace_one". Defaults to "add_or_remove".
        capacity: the size at which Poisson batches are cut off. Defaults to None, no limit.
        noise: a `noisy_sgd.CorrelatedNoise`, for sampling="cyclic". Defaults to None, independent noise.

    Returns:
        A number of steps within the budget; 0 where not even one step fits; at most `LARGEST_NUM_STEPS`.

    Raises:
        ValueError: for an argument out of its range.
    """
    plan = plans.gaussian(
        noise_multiplier,
        batch_size,
        num_examples,
        0,
        delta,
        sampling=sampling,
        accountant=accountant,
        neighbors=neighbors,
        capacity=capacity,
        noise=noise,
    )
    return most_steps(epsilon, plan)


def most_steps(epsilon: float, plan: plans.Plan) -> int:
    """The largest number of steps with which a plan's epsilon is within a budget; at most `LARGEST_NUM_STEPS`.

    Args:
        epsilon: the budget, above 0.
        plan: the run; its number of steps is not used.
    """
    epsilon = checks.real("epsilon", epsilon, above=0)
    stride = plan.sampling.stride

    def spent(strides: int, accountant: str) -> float:
        return plan.by(accountant).with_steps(strides * stride).epsilon

    fits, limit = 0, LARGEST_NUM_STEPS // stride
    for name in dict.fromkeys(("rdp", plan.accountant)):
        too_many = fits + 1
        while too_many <= limit and spent(too_many, name) <= epsilon:
            fits, too_many = too_many, too_many + max(1, too_many // 4)
        # Search downward, in negative numbers, from a count that is too large: the first one within the budget is the
        # largest.
        fits = -_first_within(lambda n, name=name: spent(-n, name), epsilon, -min(too_many, limit + 1), -fits)
    return fits * stride


def _first_within(
    spent: Callable[[int], float],
    budget: float,
    outside: int,
    within: int,
    *,
    known: tuple[float, float] = (math.inf, 0.0),
    guess: int | None = None,
    share: float = 0.0,
) -> int:
    """The smallest number in (outside, within] that spends at most the budget. Spending must decrease.

    Args:
        spent: what a number spends.
        budget: above 0.
        outside: a number that spends too much.
        within: one that does not.
        known: about what both spend. Defaults to infinity and 0, which say nothing.
        guess: a number near the answer. Defaults to None: the answer is expected near `within`.
        share: ends the search at a number that leaves at most this share of the budget. Defaults to 0: at the smallest.
    """
    spent_outside, spent_within = known
    turn, widths = 0, 3 * [math.inf]
    while within - outside > 1 and not (share and budget - spent_within <= share * budget):
        width = within - outside
        # Accounting may be slow far from the answer: move off in growing strides.
        if turn == 0 and guess is not None:
            number = guess
        elif spent_outside == math.inf:
            number = within - max(1, abs(within) * 2**turn // 32)
        elif spent_within == 0 and guess is not None:
            number = outside + max(1, abs(outside) * 2**turn // 64)
        elif spent_within > 0 and width <= widths[-3] / 2:
            # Spending is almost a power of the noise, and of the number of steps.
            power = math.log(spent_outside / budget) / math.log(spent_outside / spent_within)
            number = math.ceil(outside * (within / outside) ** power)
        else:
            number = (outside + within) // 2
        widths.append(width)
        number = min(max(number, outside + 1), within - 1)
        value = spent(number)
        if value <= budget:
            within, spent_within = number, value
        else:
            outside, spent_outside = number, value
        turn += 1
    return within
