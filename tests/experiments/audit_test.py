"""Tests of the binary audit, from its command line to a drawn figure, and of what it refuses."""

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments import audit
from tests.experiments import toy_binary

SMALL = "--epsilon=1 --num_canaries=60 --num_guesses=60 --num_runs=2 --num_trials=200 --hidden=4 --num_examples=4"


class AuditTest(toy_binary.Tests, parameterized.TestCase):
    binary = audit
    small = SMALL.split()

    @parameterized.parameters(
        ("--num_guesses=7", "`--num_guesses` must be even"),
        ("--num_guesses=20", "`--num_guesses` must allow a bound above epsilon = 1, .* give at least 30"),
        ("--num_guesses=80", "`--num_guesses` must be even, and at most the number of canaries"),
        ("--num_canaries=10,20", "`--num_canaries` must list one number for each `--epsilon`"),
        ("--num_runs=1", "`--num_runs` must be at least 2"),
        ("--num_trials=7", "`--num_trials` must be at least 40"),
        ("--delta=1", "`--delta` must lie between 0 and 1"),
        ("--epsilon=0", "`--epsilon` must be positive"),
        ("--alpha=1", "Unknown command line flag 'alpha'"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *SMALL.split(), *arguments.split())

    def flagfiles(self):
        """The flagfile of the report; that of the quick trial runs the same code on the same small settings."""
        return [path for path in super().flagfiles() if path.stem == "digits"]

    def test_a_finished_record_is_summed_up(self):
        arguments = [*SMALL.split(), f"--run_dir={self.root}/run"]
        settings = audit.parse(["audit", *arguments])
        case = {"audit": "one run", "algorithm": "dp_sgd", "epsilon": 1.0, "largest_bound": 1.25}
        run = records.create(settings.run_dir, settings.resolved(), privacy=audit.PRIVACY)
        run.append({**case, "epsilon_lower_bound": 0.5})
        run.finish({"cases": [{**case, "lowest": 0.5, "highest": 0.5, "below": 1, "count": 1}]})
        stdout, _ = self.run_binary(*arguments)
        self.assertIn("dp_sgd, one run, epsilon 1: bounds 0.50 to 0.50 of at most 1.25, 1 of 1 below", stdout)


if __name__ == "__main__":
    absltest.main()
