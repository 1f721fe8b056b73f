"""Calibrate, then account, over a grid of settings and for every sampling scheme; and epsilon moves the right way.

The gate takes every 19th setting of the grid, which is prime to all of its dimensions. All settings:

    python tests/privacy/round_trip_test.py --whole
"""

import itertools
import math
import random
import sys

import dp_accounting
from absl.testing import absltest, parameterized

from noisy_sgd import privacy, sampling
from noisy_sgd.privacy import accounting, calibration

NUM_EXAMPLES, DELTA = 1000, 1e-5
SCHEMES = (*sampling.SCHEMES, "capped")
STRIDE = 1 if "--whole" in sys.argv else 19


def plan_of(noise_multiplier, scheme, batch_size, num_steps, delta=DELTA, accountant="rdp", neighbors="add_or_remove"):
    if scheme == "capped":
        capacity = min(NUM_EXAMPLES, batch_size + math.ceil(9 * math.sqrt(batch_size)))
        drawn = sampling.CappedPoisson(NUM_EXAMPLES, batch_size, capacity=capacity)
    else:
        drawn = sampling.named(scheme)(NUM_EXAMPLES, batch_size)
    return privacy.Plan(
        event=dp_accounting.GaussianDpEvent(noise_multiplier),
        sampling=drawn,
        num_steps=num_steps,
        delta=delta,
        accountant=accountant,
        neighbors=neighbors,
    )


def grid():
    """(scheme, batch size, steps, noise multiplier, accountant, neighbors); batch size 1000 is q = 1."""
    accounted = [("pld", "add_or_remove"), ("rdp", "add_or_remove"), ("rdp", "replace_one")]
    rows = itertools.product(SCHEMES, (10, 100, NUM_EXAMPLES), (1, 40, 1000), (0.3, 1.0, 5.0, 100.0), accounted)
    found = [(*row, *way) for *row, way in rows]
    # PLD takes a minute for samples with so little noise.
    return [row for row in found if not (row[3] == 0.3 and row[1] < NUM_EXAMPLES and row[4] == "pld")]


class RoundTripTest(parameterized.TestCase):
    @parameterized.parameters(*grid()[::STRIDE])
    def test_the_epsilon_of_a_noise_buys_that_noise(self, scheme, batch_size, num_steps, noise, accountant, neighbors):
        way = {"accountant": accountant, "neighbors": neighbors}
        try:
            target = plan_of(noise, scheme, batch_size, num_steps, **way).epsilon
        except ValueError as error:
            # A scheme may have no proven bound for one of the two.
            self.assertEqual(neighbors, "replace_one")
            self.assertIn("`neighbors`", str(error))
            return
        if target in (0, math.inf):
            return
        found = calibration.least_noise(target, lambda z: plan_of(z, scheme, batch_size, num_steps, **way))
        self.assertLessEqual(found, noise * (1 + 1e-4))
        spent = plan_of(found, scheme, batch_size, num_steps, **way).epsilon
        self.assertBetween(spent, target * (1 - 1e-3), target)


class DirectionTest(parameterized.TestCase):
    @parameterized.product(scheme=SCHEMES, accountant=accounting.ACCOUNTANTS)
    def test_epsilon_moves_with_each_setting(self, scheme, accountant):
        # PLD rounds losses up to a grid whose spacing follows epsilon, by a share of 1e-5.
        rounding = 1 + 2e-5
        drawn = random.Random(f"{scheme} {accountant}")
        for _ in range(12 if accountant == "rdp" else 3):
            now = {
                "noise_multiplier": 10 ** drawn.uniform(-0.2, 1.5),
                "scheme": scheme,
                "batch_size": drawn.choice((10, 50, 100, 500, 990)),
                "num_steps": drawn.randint(1, 300),
                "delta": 10 ** drawn.uniform(-8, -3),
                "accountant": accountant,
            }
            epsilon = plan_of(**now).epsilon
            more = {
                "num_steps": now["num_steps"] + drawn.randint(1, 50),
                "noise_multiplier": now["noise_multiplier"] / drawn.uniform(1, 1.5),
                "delta": now["delta"] / drawn.uniform(1, 10),
            }
            if sampling.SCHEMES.get(scheme, sampling.Poisson).amplifies:
                more["batch_size"] = now["batch_size"] + drawn.randint(1, 10)
            for name, value in more.items():
                self.assertLessEqual(epsilon, plan_of(**{**now, name: value}).epsilon * rounding, (now, name, value))


if __name__ == "__main__":
    sys.argv = [argument for argument in sys.argv if argument != "--whole"]
    absltest.main()
