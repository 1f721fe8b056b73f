"""Tests of the sweep over batch sizes."""

from absl.testing import absltest

from noisy_sgd import config


class SweepTest(absltest.TestCase):
    def _sweep(self, algorithms=("sgd", "noisy_sgd", "dp_sgd"), batch_sizes=(8, 16), num_seeds=2, **changes):
        options = {"num_steps": 7, "learning_rate": 0.1, "effective_noise": 0.01, "l2_norm_clip": 2.0}
        base = config.Config(run=config.Run(seed=10, run_dir="sweep"))
        return config.sweep(algorithms, batch_sizes, num_seeds, base=base, **options, **changes)

    def test_only_the_batch_size_varies(self):
        runs = self._sweep().runs
        self.assertLen(runs, 3 * 2 * 2)
        self.assertEqual({c.training.num_steps for c in runs.values()}, {7})
        self.assertEqual({c.run.seed for c in runs.values()}, {10, 11})
        noisy = [c for name, c in runs.items() if name.startswith("noisy_sgd")]
        self.assertLen(noisy, 4)
        for c in noisy:
            self.assertAlmostEqual(c.training.noise_std, 0.01)
        for name, c in runs.items():
            self.assertEqual(name, f"{c.training.algorithm}-batch_{c.training.batch_size}-seed_{c.run.seed}")
            self.assertEqual(c.run.run_dir, f"sweep/{name}")

    def test_dp_sgd_may_have_noise_of_its_own(self):
        stds = {
            (c.training.algorithm, round(c.training.noise_std, 9))
            for c in self._sweep(dp_sgd_effective_noise=0.005).runs.values()
        }
        self.assertEqual(stds, {("sgd", 0.0), ("noisy_sgd", 0.01), ("dp_sgd", 0.01)})

    def test_what_is_for_dp_sgd_alone_reaches_it_alone(self):
        for name, c in self._sweep(sampling="poisson", target_quantile=0.5).runs.items():
            self.assertEqual(c.training.sampling, "poisson")
            self.assertEqual(c.training.target_quantile, 0.5 if name.startswith("dp_sgd") else None)
        clippings = {c.training.algorithm: c.training.clipping for c in self._sweep(clipping="automatic").runs.values()}
        self.assertEqual(clippings, {"sgd": "flat", "noisy_sgd": "flat", "dp_sgd": "automatic"})

    def test_refuses(self):
        for changes, message in (
            ({"clipping": "hard"}, "--clipping"),
            ({"sampling": "uniform"}, "--sampling"),
            ({"num_seeds": 0}, "--num_seeds"),
            ({"batch_sizes": ()}, "--batch_size.*one or more"),
            ({"batch_sizes": (8, 8)}, "--batch_size.*different"),
            ({"algorithms": ("sgd", "adam")}, "--algorithm"),
        ):
            with self.assertRaisesRegex(config.ConfigError, message):
                self._sweep(**changes)


if __name__ == "__main__":
    absltest.main()
