import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.data import bundled, label_noise


class LabelNoiseTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.images = bundled.load("digits")

    @parameterized.parameters(0.0, 0.25, 1.0)
    def test_the_stated_fraction_is_drawn_anew(self, fraction):
        noisy = label_noise.replace(self.images, fraction)
        changed = np.mean(noisy.train_labels != self.images.train_labels)
        # A tenth of the drawn labels is the right one again: 0.9 of the fraction changes, +- 4 standard deviations.
        deviation = np.sqrt(0.9 * 0.1 * fraction / len(noisy.train_labels))
        self.assertBetween(changed, 0.9 * fraction - 4 * deviation - 0.001, 0.9 * fraction + 4 * deviation + 0.001)

    def test_drawn_labels_are_uniform(self):
        counts = np.bincount(label_noise.replace(self.images, 1.0).train_labels, minlength=10)
        # Chi-squared with nine degrees of freedom exceeds 33.7 once in 10,000.
        self.assertLess(np.sum((counts - 143.7) ** 2 / 143.7), 33.7)

    def test_nothing_else_changes(self):
        before = self.images.train_labels.copy()
        noisy = label_noise.replace(self.images, 0.5)
        np.testing.assert_array_equal(noisy.test_labels, self.images.test_labels)
        np.testing.assert_array_equal(noisy.train_images, self.images.train_images)
        np.testing.assert_array_equal(self.images.train_labels, before)
        self.assertEqual(noisy.train_labels.dtype, before.dtype)

    def test_a_function_of_the_seed(self):
        first, again, other = (label_noise.replace(self.images, 0.5, seed).train_labels for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        self.assertGreater(np.mean(first != other), 0.3)

    @parameterized.parameters(-0.1, 1.5, float("nan"))
    def test_refuses(self, fraction):
        with self.assertRaisesRegex(ValueError, "`label_noise` must lie between 0 and 1. Received"):
            label_noise.replace(self.images, fraction)


if __name__ == "__main__":
    absltest.main()
