import hashlib
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


class StreamsTest(absltest.TestCase):
    KEY = (-(2**63), 2**62 + 5)
    WORDS = (2**63, 2**62 + 5)

    def test_a_stream_of_a_key_and_of_numbers(self):
        for numbers in ((), (3,), (0, 2**40)):
            expected = np.random.default_rng([*self.WORDS, *numbers]).random(9)
            np.testing.assert_array_equal(keys.stream(self.KEY, *numbers).random(9), expected)

    def test_draws_of_one_key_lie_apart_in_the_counter(self):
        counters = [np.random.Philox(key=self.WORDS, counter=draw << 128) for draw in (0, 5)]
        for draw, counter in zip((0, 5), counters, strict=True):
            expected = np.random.Generator(counter).random(9)
            np.testing.assert_array_equal(keys.counter_stream(self.KEY, draw).random(9), expected)
        default = np.random.Generator(np.random.Philox(key=self.WORDS)).random(9)
        np.testing.assert_array_equal(keys.counter_stream(self.KEY).random(9), default)

    def test_numbers_of_names(self):
        found = {keys.number(key, name) for key in (self.KEY, (1, 2)) for name in ("", "a", "b", "ab", "\u03b1")}
        self.assertLen(found, 10)
        self.assertBetween(max(found), 2**28, 2**32 - 1)
        expected = np.random.SeedSequence([*self.WORDS, 97, 98]).generate_state(1)[0]
        self.assertEqual(keys.number(self.KEY, "ab"), expected)

    def test_arbitrary_values_are_the_same_every_time(self):
        self.assertEqual(keys.arbitrary(3).random(), np.random.default_rng(3).random())


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

    def test_a_fingerprint_tells_secrets_apart_and_not_what_they_are(self):
        secrets = [bytes([first, *range(15)]) for first in range(200)]
        prints = {keys.fingerprint(secret) for secret in secrets}
        self.assertLen(prints, 200)
        digest = hashlib.sha256(b"noisy_sgd\0fingerprint\0" + secrets[0]).digest()
        self.assertEqual(keys.fingerprint(secrets[0]), f"{int.from_bytes(digest[:8], 'little'):016x}")
        others = set(keys.PURPOSES) - {"fingerprint"}
        # No half of another key, which the fingerprint would give away.
        halves = {f"{half % 2**64:016x}" for purpose in others for half in keys.derive(secrets[0], purpose)}
        self.assertEmpty(halves & prints)

    def test_what_could_be_guessed_has_no_fingerprint(self):
        for secret in (7, b"short", "0123456789abcdef", None):
            with self.assertRaisesRegex(ValueError, "`secret` must be at least 16 bytes"):
                keys.fingerprint(secret)

    def test_an_unknown_purpose_is_refused(self):
        with self.assertRaisesRegex(ValueError, "Received: purpose='nose'"):
            keys.derive(1, "nose")


if __name__ == "__main__":
    absltest.main()
