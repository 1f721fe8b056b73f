"""Tests of the escapes from a sharp well: the noise's law, the arms step by step, ratios of times, and the claims."""

import types

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd import keys
from noisy_sgd.experiments.report import escaping_time_claims
from noisy_sgd.studies import escaping_time


class NoiseTest(parameterized.TestCase):
    @parameterized.parameters(1.5, 2.0)
    def test_has_the_stable_law(self, tail):
        """The characteristic function at three points, of 100,000 draws: within four standard errors."""
        draws = escaping_time.stable(tail, (100_000,), keys.arbitrary(3))
        for point in (0.3, 1.0, 2.0):
            values = np.cos(point * draws)
            error = values.std() / np.sqrt(len(draws))
            self.assertAlmostEqual(values.mean(), np.exp(-(point**tail)), delta=4 * error)
        self.assertAlmostEqual(np.mean(draws > 0), 0.5, delta=4 * 0.5 / np.sqrt(len(draws)))

    def test_tail_index_2_is_gaussian(self):
        draws = escaping_time.stable(2.0, (20_000,), keys.arbitrary(4))
        self.assertGreater(stats.kstest(draws, "norm", args=(0, np.sqrt(2))).pvalue, 1e-3)
        self.assertLess(stats.kstest(draws, "norm", args=(0, 1.0)).pvalue, 1e-10)

    def test_typical_denominator(self):
        self.assertAlmostEqual(escaping_time.typical_denominator(2.0), np.sqrt(2), delta=0.01)


class EscapesTest(parameterized.TestCase):
    @parameterized.parameters(*escaping_time.ARMS)
    def test_steps_written_out(self, arm):
        noise, ratio, rate = escaping_time.stable(1.5, (300, 5), keys.arbitrary(5)), 4.0, 0.3
        expected = []
        for column in noise.T:
            weight = mean = square = 0.0
            escaped = -1
            for step, drawn in enumerate(column.tolist(), start=1):
                gradient = (weight if weight < 1 else (weight - 3.0) / ratio) + drawn
                mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
                if arm == "sgd":
                    weight -= 0.05 * gradient
                elif arm == "momentum":
                    weight -= 0.05 * mean
                else:
                    corrected = square / (1 - 0.999**step)
                    weight -= rate * mean / (1 - 0.9**step) / (corrected**0.5 + 1e-7)
                if weight > 1 and escaped < 0:
                    escaped = step
            expected.append(escaped)
        found = escaping_time.escapes(arm, ratio, noise, learning_rate=rate)
        self.assertEqual(found.tolist(), expected)
        self.assertGreater(max(expected), 0)

    def test_without_noise_nothing_escapes(self):
        self.assertEqual(escaping_time.escapes("sgd", 2.0, np.zeros((9, 1)), learning_rate=1.0).tolist(), [-1])


class SummaryTest(absltest.TestCase):
    def test_ratios_and_rows(self):
        lines = [
            _line(tail, seed, sgd=0.01 * (1 + seed), momentum=0.005, adam=0.01 * (1 + seed) / factor)
            for seed in range(3)
            for tail, factor in ((1.5, 3.0 + 0.1 * seed), (2.0, 2.0))
        ]
        summary = escaping_time.summary(lines)
        found = {(line["tail"], *line["arms"]): line for line in summary}
        logs = np.log([3.0, 3.1, 3.2])
        half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / np.sqrt(3)
        self.assertAlmostEqual(found[1.5, "adam", "sgd"]["mean"], logs.mean())
        self.assertAlmostEqual(found[1.5, "adam", "sgd"]["low"], logs.mean() - half)
        self.assertAlmostEqual(found[2.0, "adam", "sgd"]["mean"], np.log(2.0))
        self.assertAlmostEqual(found[None, "adam", "sgd"]["mean"], logs.mean() - np.log(2.0))
        self.assertEqual(found[1.5, "adam", "momentum"]["problems"], 3)
        run = types.SimpleNamespace(results={"summary": summary}, directory=types.SimpleNamespace(name="two_wells"))
        outcomes = [claim.measure([run]) for claim in escaping_time_claims.CLAIMS]
        self.assertEqual([outcome.reached for outcome in outcomes], [True, False, True])
        self.assertIn("3.10 [", outcomes[0].here)
        self.assertIn("2.00 [2.00, 2.00] times under Gaussian noise", outcomes[2].here)

    def test_rates_count_runs_that_stay(self):
        line = escaping_time.measure({"data_seed": 1, "tail": 2.0, "num_runs": 3, "num_steps": 4})
        self.assertEqual(line["escaped"]["sgd"], 0)
        self.assertAlmostEqual(line["rates"]["sgd"], 0.5 / 12)


def _line(tail, seed, **rates):
    return {"tail": tail, "data_seed": seed, "rates": {"adam_half": 1.0, "adam_double": 1.0} | rates}


if __name__ == "__main__":
    absltest.main()
