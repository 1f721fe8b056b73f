import math
import pathlib

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments.report import image_claims

SIZES = (16, 32, 64)
SEEDS = (0, 1, 2)
GOOD = {16: 0.90, 32: 0.88, 64: 0.86}
BAD = {16: 0.86, 32: 0.88, 64: 0.90}
FLAT = {16: 0.90, 32: 0.90, 64: 0.90}


def _run(algorithm, size, seed, final, early=0.3, gradient=1.0, noise=2.0):
    config = {
        "algorithm": {"algorithm": algorithm, "batch_size": size, "num_steps": 100, "noise_std": 0.1},
        "run": {"seed": seed},
    }
    norms = {"squared_gradient_norm": gradient, "squared_noise_norm": noise}
    metrics = [
        {"step": 1, **norms},
        {"step": 10, "val_accuracy": early},
        {"step": 51, **norms},
        {"step": 100, "val_accuracy": final},
    ]
    return records.Record(
        directory=pathlib.Path("nowhere"),
        config=config,
        versions={},
        privacy="",
        status=records.FINISHED,
        results={"num_parameters": 200},
        metrics=metrics,
    )


def _runs(algorithm, finals, **measured):
    jitter = {seed: 0.001 * seed * (-1) ** seed for seed in SEEDS}
    return [_run(algorithm, size, seed, finals[size] + jitter[seed], **measured) for size in SIZES for seed in SEEDS]


class FinalAccuracyTest(parameterized.TestCase):
    @parameterized.parameters("sgd", "noisy_sgd", "dp_sgd")
    def test_slope(self, name):
        outcome = image_claims.slope(name)(_runs(name, GOOD))
        self.assertTrue(outcome.reached)
        self.assertStartsWith(outcome.here, "-2.00 [-2.00, -2.00] points per doubling, B = 16 to 64, 3 seeds")
        self.assertFalse(image_claims.slope(name)(_runs(name, BAD)).reached)
        self.assertFalse(image_claims.slope(name)(_runs(name, FLAT)).reached)
        self.assertIsNone(image_claims.slope(name)(_runs("other", GOOD)))

    def test_a_slope_within_the_scatter_of_seeds_is_not_reached(self):
        slopes = {0: -0.02, 1: 0.01, 2: -0.01}
        runs = [_run("sgd", size, seed, 0.9 + slopes[seed] * math.log2(size)) for size in SIZES for seed in SEEDS]
        self.assertFalse(image_claims.slope("sgd")(runs).reached)

    def test_a_slope_needs_seeds_and_sizes(self):
        self.assertIsNone(image_claims.slope("sgd")([_run("sgd", size, 0, 0.9) for size in SIZES]))
        self.assertIsNone(image_claims.slope("sgd")([_run("sgd", 16, seed, 0.9) for seed in SEEDS]))

    def test_a_diverged_run_reaches_nothing(self):
        runs = _runs("sgd", GOOD)
        runs[0].metrics[-1]["val_accuracy"] = None
        self.assertFalse(image_claims.slope("sgd")(runs).reached)
        self.assertFalse(image_claims.trend("sgd")(runs).reached)

    def test_trend(self):
        """Three seeds in perfect order: p = 1/216 for one algorithm, and twice that beside another."""
        outcome = image_claims.trend("sgd")(_runs("sgd", GOOD))
        self.assertTrue(outcome.reached)
        self.assertEqual(outcome.here, "p = 0.0046, 3 seeds; 90.0, 88.0, 86.0 % for B = 16, 32, 64")
        both = _runs("sgd", GOOD) + _runs("noisy_sgd", GOOD)
        self.assertStartsWith(image_claims.trend("noisy_sgd")(both).here, "p = 0.0093, 3 seeds")
        self.assertFalse(image_claims.trend("sgd")(_runs("sgd", {**GOOD, 32: 0.85})).reached)
        self.assertFalse(image_claims.trend("sgd")(_runs("sgd", BAD)).reached)
        self.assertFalse(image_claims.trend("sgd")(_runs("sgd", FLAT)).reached)
        self.assertIsNone(image_claims.trend("dp_sgd")(_runs("sgd", GOOD)))
        self.assertIsNone(image_claims.trend("sgd")(_runs("sgd", GOOD)[:6]))

    @parameterized.parameters((0.005, True), (0.014, True), (0.02, False), (-0.02, False))
    def test_noisy_ends_where_sgd_ends(self, difference, reached):
        noisy = {**GOOD, 32: GOOD[32] + difference}
        outcome = image_claims.noisy_ends_where_sgd_ends(_runs("sgd", GOOD) + _runs("noisy_sgd", noisy))
        self.assertEqual(outcome.reached, reached)
        self.assertIn(f"{100 * difference:+.2f} [{100 * difference:+.2f}, {100 * difference:+.2f}]", outcome.here)
        self.assertIsNone(image_claims.noisy_ends_where_sgd_ends(_runs("sgd", GOOD)))

    def test_equality_needs_precision(self):
        """Differences of -1.2, 0 and 1.2 points have a mean of 0, and a 90 % interval that reaches beyond 1.5."""
        noisy = [_run("noisy_sgd", size, seed, GOOD[size] + 0.012 * (seed - 1)) for size in SIZES for seed in SEEDS]
        plain = [_run("sgd", size, seed, GOOD[size]) for size in SIZES for seed in SEEDS]
        self.assertFalse(image_claims.noisy_ends_where_sgd_ends(plain + noisy).reached)

    @parameterized.parameters((0.2, True), (0.3, False), (0.4, False))
    def test_noisy_starts_slower(self, early, reached):
        runs = _runs("sgd", GOOD, early=0.3) + _runs("noisy_sgd", GOOD, early=early)
        self.assertEqual(image_claims.noisy_starts_slower(runs).reached, reached)
        self.assertIsNone(image_claims.noisy_starts_slower(_runs("sgd", GOOD)))


class NormsTest(parameterized.TestCase):
    @parameterized.parameters((2.0, True), (2.01, True), (2.03, False), (1.0, False), (4.0, False))
    def test_noise_norm_is_exact(self, noise, reached):
        outcome = image_claims.noise_norm_is_exact(_runs("noisy_sgd", GOOD, noise=noise))
        self.assertEqual(outcome.reached, reached)
        self.assertStartsWith(outcome.here, f"{noise / 2:.4f} times")
        self.assertIsNone(image_claims.noise_norm_is_exact(_runs("sgd", GOOD)))


class ClaimsTest(absltest.TestCase):
    def test_every_claim_is_undecided_without_its_records(self):
        for claim in image_claims.CLAIMS:
            self.assertIsNone(claim.measure(_runs("other", GOOD)), claim.text)


if __name__ == "__main__":
    absltest.main()
