"""Tests of the binary pruning, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments import pruning
from noisy_sgd.experiments.report import pruning_claims
from tests.experiments import toy_binary


class PruningTest(toy_binary.Tests, parameterized.TestCase):
    binary = pruning
    small = [
        *"--dataset=digits --num_train_examples=60 --num_public_examples=64 --widths=8 --fractions=0,0.9".split(),
        *"--epsilons=8 --batch_size=20 --num_steps=4 --num_public_steps=4 --learning_rates=0.5".split(),
        *"--num_tuning_seeds=1 --num_seeds=2 --num_processes=1".split(),
    ]
    figures = 2

    def flagfiles(self):
        """Without those for a night, which differ in numbers that the small settings replace."""
        return [flagfile for flagfile in super().flagfiles() if flagfile.stem != "overnight"]

    def test_a_flagfile_ends_in_figures(self):
        super().test_a_flagfile_ends_in_figures()
        record = records.read(self.root / "mnist")
        self.assertEqual([row["row"] for row in record.results["rows"]][:2], ["random, width 8", "random, wider"])
        outcomes = [claim.measure([record]) for claim in pruning_claims.CLAIMS]
        # Widths 128 and 1024 were not measured.
        self.assertEqual([outcome is None for outcome in outcomes], [True] * 4 + [False] * 2)

    @parameterized.parameters(
        ("--fractions=0.5,0.9", "`--fractions` must be at least 0 and less than 1, the first one 0"),
        ("--fractions=0,1", "`--fractions` must be at least 0 and less than 1, the first one 0"),
        ("--fractions=0,0.5", "must hold one of at least 0.9"),
        ("--epsilons=0", "must be positive and finite"),
        ("--delta=1", "`--delta` must lie between 0 and 1"),
        ("--num_public_examples=10", "must be at least 64"),
        ("--widths=8,8", "must list one or more different values"),
        ("--l2_norm_clip=0", "must be positive and finite"),
        ("--batch_size=2000", "`--batch_size` must be at most `--num_train_examples`"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())


if __name__ == "__main__":
    absltest.main()
