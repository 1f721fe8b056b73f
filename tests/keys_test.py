import itertools

import numpy as np
from absl.testing import absltest

from noisy_sgd import keys


class GeneratorTest(absltest.TestCase):
    def test_any_sign(self):
        for seed in (0, 7, 2**70):
            self.assertEqual(keys.generator(seed, "noise").random(), np.random.default_rng(seed).random())
        cases = [(seed, purpose) for seed in (-1, -2, -(2**70)) for purpose in ("noise", "order")]
        drawn = {keys.generator(*case).random() for case in cases}
        self.assertLen(drawn, 6)
        self.assertEqual(keys.generator(-1, "noise").random(), keys.generator(-1, "noise").random())


class KeysTest(absltest.TestCase):
    def test_one_key_a_purpose_and_a_seed(self):
        derived = {keys.derive(seed, purpose) for seed in range(50) for purpose in keys.PURPOSES}
        self.assertLen(derived, 50 * len(keys.PURPOSES))
        self.assertEqual(keys.derive(7, "noise"), keys.derive(np.int64(7), "noise"))

    def test_every_half_is_a_signed_64_bit_integer(self):
        halves = [half for seed in range(200) for half in keys.derive(seed, "noise")]
        self.assertTrue(all(-(2**63) <= half < 2**63 for half in halves))
        self.assertLess(min(halves), -(2**61))
        self.assertGreater(max(halves), 2**61)

    def test_normals_of_one_purpose_do_not_follow_uniforms_of_another(self):
        import tensorflow as tf

        # TensorFlow's uniform and normal draws on one key are the same bits: the purposes must not share a key.
        draws = {
            purpose: tf.random.stateless_normal([20_000], keys.derive(3, purpose)).numpy() for purpose in keys.PURPOSES
        }
        for first, second in itertools.combinations(keys.PURPOSES, 2):
            for transform in (np.asarray, np.abs):
                correlation = np.corrcoef(transform(draws[first]), transform(draws[second]))[0, 1]
                self.assertLess(abs(correlation), 5 / np.sqrt(20_000), (first, second))

    def test_a_secret_is_new_every_time(self):
        self.assertLen({keys.secret() for _ in range(10)}, 10)
        self.assertLen(keys.secret(), 16)

    def test_an_unknown_purpose_is_refused(self):
        with self.assertRaisesRegex(ValueError, "Received: purpose='nose'"):
            keys.derive(1, "nose")


if __name__ == "__main__":
    absltest.main()
