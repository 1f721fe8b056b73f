"""Tests of the binary fixed_epsilon_noise, of its study, and of its claim."""

from unittest import mock

from absl.testing import absltest, parameterized

from noisy_sgd import privacy, records
from noisy_sgd.experiments import fixed_epsilon_noise as binary
from noisy_sgd.experiments.report import claims, fixed_epsilon_noise_claims
from noisy_sgd.studies import fixed_epsilon_noise
from tests.experiments import toy_binary


class FixedEpsilonNoiseTest(toy_binary.Tests, parameterized.TestCase):
    binary = binary
    small = ["--smoke"]

    @parameterized.parameters(
        ("--epsilon=0", "`--epsilon` must be positive"),
        ("--accountant=gdp", "`--accountant` must be one of pld, rdp"),
        ("--delta=1", "`--delta` must be between 0 and 1"),
        ("--num_examples=256", "`--num_examples` must be at least 257"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())

    def test_the_noise_is_the_least_within_the_budget(self):
        case = fixed_epsilon_noise.cases(epsilon=3.0, delta=1e-3, num_steps=10, num_examples=300, accountant="rdp")[1]
        self.assertEqual(case["batch_size"], 128)
        found = fixed_epsilon_noise.measure(case)
        sigma = found["noise_multiplier"]
        self.assertEqual(found["noise_std"], sigma / 128)
        self.assertLessEqual(privacy.epsilon(sigma, 128, 300, 10, 1e-3, sampling="poisson", accountant="rdp"), 3.0)
        self.assertGreater(
            privacy.epsilon(0.999 * sigma, 128, 300, 10, 1e-3, sampling="poisson", accountant="rdp"), 3.0
        )

    def test_the_limit_takes_every_example_in_every_step(self):
        whole = fixed_epsilon_noise.cases(epsilon=3.0, delta=1e-3, num_steps=10, num_examples=300, accountant="rdp")[-1]
        sigma = fixed_epsilon_noise.measure(whole)["noise_multiplier"]
        self.assertEqual(
            sigma, privacy.noise_multiplier_for(3.0, 300, 300, 10, 1e-3, sampling="shuffled", accountant="rdp")
        )

    @parameterized.parameters(
        ((8.0, 4.0, 2.0, 1.95), claims.REACHED),
        ((8.0, 4.0, 4.0, 3.9), claims.NOT_REACHED),
        ((8.0, 5.0, 3.0, 2.95), claims.NOT_REACHED),
        ((8.0, 4.0, 2.0, 1.5), claims.NOT_REACHED),
    )
    def test_the_claim_is_judged_by_its_rule(self, noise, verdict):
        lines = [{"batch_size": 64 * 2**power, "noise_std": std} for power, std in enumerate((*noise, 1.0))]
        run = mock.Mock(spec=records.Record, metrics=lines, results=fixed_epsilon_noise.summarize(lines))
        outcome = fixed_epsilon_noise_claims.levels_off(run)
        self.assertEqual(claims.REACHED if outcome.reached else claims.NOT_REACHED, verdict, outcome.here)


if __name__ == "__main__":
    absltest.main()
