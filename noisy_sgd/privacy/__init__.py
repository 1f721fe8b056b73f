"""What a run may claim about privacy: plans, accounting, calibration, composition, total amount of noise, statements.

privacy.epsilon(2.5, 16384, 1281167, 72000, 8e-7, sampling="poisson")               # 7.465 (PLD; 7.954 by RDP)
privacy.noise_multiplier_for(8.0, 16384, 1281167, 72000, 8e-7, sampling="poisson")  # the least noise for epsilon = 8
privacy.Plan(event=optimizer.mechanism, sampling=scheme, num_steps=1000, delta=1e-5).epsilon
privacy.composed([plan_a, plan_b], delta=1e-5).epsilon                              # of two runs on the same data
privacy.statement.statement("dp_sgd", plan).text                # what a run prints before it trains
"""

from noisy_sgd.privacy import (
    accounting,
    calibration,
    composition,
    ledger,
    plan,
    selection,
    statement,
    tan,
    truncation,
)
from noisy_sgd.privacy.calibration import noise_multiplier_for, steps_for
from noisy_sgd.privacy.composition import composed
from noisy_sgd.privacy.plan import Plan, epsilon

__all__ = [
    "Plan",
    "accounting",
    "calibration",
    "composed",
    "composition",
    "epsilon",
    "ledger",
    "noise_multiplier_for",
    "plan",
    "selection",
    "statement",
    "steps_for",
    "tan",
    "truncation",
]
