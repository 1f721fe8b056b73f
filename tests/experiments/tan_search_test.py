import numpy as np
from absl.testing import absltest

from noisy_sgd import config, records
from noisy_sgd.experiments import flags, tan_search
from noisy_sgd.experiments.report import claims, tan_search_claims
from noisy_sgd.studies import tan_search as study
from noisy_sgd.studies.laboratory import tuning
from tests.experiments import toy_binary


class TanSearchTest(toy_binary.Runs, absltest.TestCase):
    binary = tan_search

    def test_a_smoke_run_writes_the_private_run_to_launch(self):
        directory = self.root / "tan_search" / "digits"
        stdout, _ = self.run_binary("--smoke", "--num_processes=1", f"--run_dir={directory}")
        record = records.read(directory)
        self.assertIn(f"figure: {directory}/figures/tan_search.png", stdout)
        self.assertIn(f"epsilon = {record.results['epsilon']:.4g} at delta = 1e-05 for this run alone", stdout)
        self.assertIn("The search is free only on public data: each small run has epsilon = ", stdout)
        made = flags.train(["train", f"--flagfile={directory}/train.flags"])
        self.assertEqual(made.data, config.Data(dataset="digits", num_train_examples=200))
        self.assertEqual((made.model.model, made.model.hidden), ("mlp", (8,)))
        trained = made.training
        self.assertEqual((trained.batch_size, trained.num_steps, trained.sampling), (100, 10, "poisson"))
        self.assertEqual((trained.l2_norm_clip, trained.delta), (1.0, 1e-5))
        self.assertAlmostEqual(trained.noise_multiplier, record.results["noise_multiplier"], places=12)
        self.assertAlmostEqual(record.results["small_noise_multiplier"], trained.noise_multiplier / 10, places=12)
        self.assertIn(trained.learning_rate, (0.5, 2.0))
        rows = {row.verdict for row in claims.judge(tan_search_claims.CLAIMS, self.root)}
        self.assertLess(rows, {claims.REACHED, claims.NOT_REACHED, claims.NOT_RUN})
        self.assertIn(claims.NOT_RUN, rows)

    def test_bad_values_are_refused_in_a_sentence(self):
        self.assert_refused("`--small_batch_size` must be at least 1 and below", "--small_batch_size=512")


class MeasureTest(absltest.TestCase):
    def test_small_runs_have_the_private_run_s_noise_and_other_test_images(self):
        setting = study.Setting(
            dataset="digits", num_train_examples=200, batch_size=100, small_batch_size=20, num_steps=3
        )
        small, large = (study._trainer(setting, size).model.optimizer for size in (20, 100))
        self.assertAlmostEqual(large.noise_multiplier, study.noise_multiplier(setting), places=12)
        self.assertAlmostEqual(small.noise_std, large.noise_std, places=12)
        case = {"batch_size": 20, "learning_rate": 1.0, "seed": 0}
        chosen, judged = (study.measure(setting, {**case, "stage": stage}) for stage in (tuning.TUNING, tuning.FINAL))
        self.assertNotEqual(chosen["loss"], judged["loss"])
        self.assertEqual(study.measure(setting, {**case, "stage": tuning.FINAL}), judged)


class SummaryTest(absltest.TestCase):
    def test_a_prediction_within_a_point_is_confirmed(self):
        setting = study.Setting(dataset="digits", num_train_examples=200, batch_size=100, num_steps=2, num_seeds=8)
        for difference, verdict in ((0.0, "confirmed"), (0.008, "confirmed"), (0.012, "refuted"), (-0.012, "refuted")):
            noise = 1e-3 * np.random.default_rng(0).normal(size=(2, 8))
            lines = [
                {"stage": tuning.TUNING, "batch_size": 64, "learning_rate": rate, "accuracy": rate}
                for rate in setting.learning_rates
            ]
            lines += [
                {"stage": tuning.FINAL, "batch_size": size, "accuracy": 0.9 + shift + noise[place, seed]}
                for place, (size, shift) in enumerate(((64, difference), (100, 0.0)))
                for seed in range(8)
            ]
            found = study.summary(setting, lines)
            self.assertEqual(found["rows"][0]["verdict"], verdict)
            self.assertEqual(found["learning_rate"], 8.0)
            self.assertBetween(found["epsilon"], 7.9, 8.0)


if __name__ == "__main__":
    absltest.main()
