"""Tests of the timing of correlated noise: one line for each number of draws, which are really drawn."""

from unittest import mock

from absl.testing import absltest

from noisy_sgd.experiments.benchmarks import cases, noise_draws

SETTINGS = cases.Benchmark(workload="mlp", batch_size=4, num_rounds=2, sweep="noise")


class NoiseDrawsTest(absltest.TestCase):
    def test_a_line_for_each_number_of_draws(self):
        with mock.patch.object(noise_draws, "DRAWS", (1, 8)):
            one, many, alone = noise_draws.lines(SETTINGS)
        self.assertEqual((one["draws"], many["draws"], one["ratio"]), (1, 8, 1.0))
        # 669,706 normals per draw are most of this step.
        self.assertGreater(many["ratio"], 2)
        self.assertAlmostEqual(many["ratio"], many["processor_ms"] / one["processor_ms"], delta=0.01 * many["ratio"])
        self.assertEqual((alone["normals"], alone["rounds"]), (1_000_000, 2))
        self.assertAlmostEqual(alone["ratio_to_native"], alone["draw_ms"] / alone["native_ms"], delta=0.01)
        # A million numbers in less than a tenth of a millisecond were none.
        self.assertGreater(min(alone["draw_ms"], alone["native_ms"]), 0.1)


if __name__ == "__main__":
    absltest.main()
