import decimal
import math

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import checks


class ChecksTest(parameterized.TestCase):
    @parameterized.parameters((3,), (np.int64(3),), (np.uint8(3),), (np.array([3])[0],))
    def test_whole_numbers(self, value):
        self.assertEqual(checks.count("n", value), 3)
        self.assertEqual(checks.count("n", value, least=3), 3)
        self.assertEqual(checks.seed("n", value), 3)
        self.assertIs(type(checks.count("n", value)), int)
        with self.assertRaisesRegex(ValueError, "^`n` must be a whole number of at least 4. Received: n=3$"):
            checks.count("n", value, least=4)

    def test_what_is_no_whole_number(self):
        for value in (True, np.bool_(True), 3.0, np.float64(3.0), "3", None, np.array([3]), np.array(True), 1j):
            self.assertIsNone(checks.whole(value))
            with self.assertRaisesRegex(ValueError, "^`n` must be a whole number of at least 1. Received: n="):
                checks.count("n", value)
            with self.assertRaisesRegex(ValueError, "^`n` must be a positive integer. Received: n="):
                checks.count("n", value, constraint="must be a positive integer")
            with self.assertRaisesRegex(ValueError, "^`n` must be an integer. Received: n="):
                checks.seed("n", value)

    def test_seeds_of_any_sign_and_size(self):
        for seed in (-1, 0, 2**128):
            self.assertEqual(checks.seed("seed", seed), seed)

    def test_a_secret_is_never_shown(self):
        with self.assertRaisesRegex(ValueError, "^`seed` must be an integer. Received: seed=6 bytes$"):
            checks.seed("seed", b"secret")

    @parameterized.parameters(
        (0.5, {}), (np.float32(0.5), {"above": 0, "below": 1}), (0, {"least": 0}), (decimal.Decimal("0.5"), None)
    )
    def test_real_numbers(self, value, bounds):
        if bounds is None:
            self.assertRaises(ValueError, checks.real, "x", value)
        else:
            self.assertEqual(checks.real("x", value, **bounds), float(value))
            self.assertIs(type(checks.real("x", value, **bounds)), float)

    @parameterized.parameters(
        (True, {}, "must be a finite number. Received: x=True"),
        ("1", {}, "must be a finite number. Received: x='1'"),
        (math.nan, {}, "must be a finite number. Received: x=nan"),
        (math.inf, {"above": 0}, "must be a finite number above 0. Received: x=inf"),
        (0.0, {"above": 0, "below": 1}, "must be a finite number above 0 and below 1. Received: x=0.0"),
        (1, {"above": 0, "below": 1}, "must be a finite number above 0 and below 1. Received: x=1"),
        (np.float64(2.5), {"below": 2}, "must be a finite number below 2. Received: x=2.5"),
        (-0.1, {"least": 0}, "must be a finite number at least 0. Received: x=-0.1"),
    )
    def test_what_is_no_such_real_number(self, value, bounds, message):
        with self.assertRaises(ValueError) as refused:
            checks.real("x", value, **bounds)
        self.assertEqual(str(refused.exception), f"`x` {message}")

    def test_choices(self):
        self.assertEqual(checks.choice("color", "red", {"red": 1, "blue": 2}), "red")
        for value in ("Red", None, ["red"]):
            with self.assertRaisesRegex(ValueError, "^`color` must be one of red, blue. Received: color="):
                checks.choice("color", value, ("red", "blue"))

    def test_at_least(self):
        checks.at_least("size", 1, 1)
        checks.at_least("size", 1.5, 1)
        for value in (0, 0.5, math.nan):
            with self.assertRaisesRegex(ValueError, f"^`size` must be at least 1. Received: size={value}$"):
                checks.at_least("size", value, 1)

    def test_a_batch_fits_its_examples(self):
        self.assertEqual(checks.batch(np.int64(8), 8), (8, 8))
        with self.assertRaisesRegex(ValueError, "^`batch_size` must be at most `num_examples`.*Received: batch_size=9"):
            checks.batch(9, 8)

    def test_arrays_of_one_sign(self):
        for check in (checks.positive, checks.non_negative):
            np.testing.assert_array_equal(check("x", [1, 2]), np.array([1.0, 2.0]), strict=True)
            for value in ([1.0, math.nan], [1.0, math.inf], -1):
                with self.assertRaisesRegex(ValueError, "^`x` must be .* and finite. Received: x="):
                    check("x", value)
        self.assertEqual(checks.non_negative("x", 0), 0.0)
        with self.assertRaisesRegex(ValueError, "^`x` must be positive and finite. Received: x=0$"):
            checks.positive("x", 0)


if __name__ == "__main__":
    absltest.main()
