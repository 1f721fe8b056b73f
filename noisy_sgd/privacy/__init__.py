"""What a run may claim about privacy: accounting, calibration, total amount of noise, and the statement in words.

privacy.epsilon(2.5, 16384, 1281167, 72000, 8e-7, sampling="poisson")               # 7.465 (PLD; 7.954 by RDP)
privacy.noise_multiplier_for(8.0, 16384, 1281167, 72000, 8e-7, sampling="poisson")  # the least noise for epsilon = 8
privacy.statement.statement("dp_sgd", ...).text                 # what a run prints before it trains
"""

from noisy_sgd.privacy import accounting, calibration, ledger, statement, tan, truncation
from noisy_sgd.privacy.accounting import epsilon
from noisy_sgd.privacy.calibration import noise_multiplier_for, steps_for

__all__ = [
    "accounting",
    "calibration",
    "epsilon",
    "ledger",
    "noise_multiplier_for",
    "statement",
    "steps_for",
    "tan",
    "truncation",
]
