"""Epsilons recorded with dp_accounting 0.4.3 hold with every version that a Python brings."""

from absl.testing import absltest, parameterized

from noisy_sgd import privacy

# Noise multiplier, batch size, examples, steps, delta; then Poisson by PLD and by RDP, shuffled by PLD and by RDP.
RECORDED = (
    ((0.3, 8, 60_000, 50, 1e-6), (8.0204897, 10.1807438, 20.7812223, 21.9775431)),
    ((0.6, 64, 1437, 200, 1e-5), (13.9698426, 15.9142958, 33.1037324, 35.0817540)),
    ((1.1, 256, 60_000, 2000, 1e-5), (0.8472578, 1.0451979, 14.7514663, 15.7667421)),
    ((2.5, 16_384, 1_281_167, 72_000, 8e-7), (7.4652380, 7.9536582, 130.0813239, 135.1466917)),
    ((6.0, 512, 1437, 100, 1e-4), (2.1170657, 2.3471642, 3.6776436, 4.0381932)),
    ((30.0, 1000, 1000, 500, 1e-6), (3.5080281, 3.7557106, 3.5080251, 3.7557106)),
)


class RecordedEpsilonsTest(parameterized.TestCase):
    @parameterized.parameters(*RECORDED)
    def test_they_hold_to_a_ten_thousandth(self, settings, recorded):
        kinds = [(sampling, accountant) for sampling in ("poisson", "shuffled") for accountant in ("pld", "rdp")]
        for (sampling, accountant), expected in zip(kinds, recorded, strict=True):
            found = privacy.epsilon(*settings, sampling=sampling, accountant=accountant)
            self.assertAlmostEqual(found / expected, 1, delta=1e-4, msg=f"{sampling}, {accountant}")


if __name__ == "__main__":
    absltest.main()
