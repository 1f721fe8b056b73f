"""Tests of the binary clipping_or_noise, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments import clipping_or_noise
from noisy_sgd.experiments.report import clipping_or_noise_claims
from tests.experiments import toy_binary


class ClippingOrNoiseTest(toy_binary.Tests, parameterized.TestCase):
    binary = clipping_or_noise
    small = [
        *"--dataset=digits --num_train_examples=60 --width=8 --other_widths=16 --batch_size=10 --num_steps=8".split(),
        *"--relative_clips=1 --learning_rates=0.1 --num_tuning_seeds=1 --num_seeds=2 --num_processes=1".split(),
    ]
    figures = 4

    def test_a_flagfile_ends_in_figures(self):
        super().test_a_flagfile_ends_in_figures()
        record = records.read(self.root / "mnist")
        self.assertEqual(record.config["dataset"], "digits")
        self.assertNotIn("num_processes", record.config)
        for claim in clipping_or_noise_claims.CLAIMS:
            outcome = claim.measure([record])
            self.assertRegex(outcome.here, r"^(confirmed|refuted|undecided): .* \(2 seeds, p = [\d.e-]+ after Holm\)$")

    @parameterized.parameters(
        ("--num_seeds=0", "`--num_seeds` must be a whole number of at least 2"),
        ("--dataset=cifar", "`--dataset` must be one of mnist"),
        ("--batch_size=2000", "`--batch_size` must be at most `--num_train_examples`"),
        ("--learning_rates=0.1,0.1", "`--learning_rates` must list distinct numbers above 0"),
        ("--learning_rates=0", "`--learning_rates` must list distinct numbers above 0"),
        ("--relative_clips=-1", "must be positive and finite"),
        ("--other_widths=128", "must list one or more different values"),
        ("--other_widths=0", "must be at least 1"),
        ("--ema_decay=1", "`--ema_decay` must lie between 0 and 1"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())


if __name__ == "__main__":
    absltest.main()
