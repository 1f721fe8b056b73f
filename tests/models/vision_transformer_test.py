import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipped_sum
from noisy_sgd.models import vision_transformer
from tests import oracles


class VisionTransformerTest(parameterized.TestCase):
    def test_number_of_parameters(self):
        model = vision_transformer(10, input_shape=(8, 8, 1), patch=2, depth=1, width=8, heads=2)
        patches, attention, perceptron = 4 * 8 + 8, 4 * (8 * 8 + 8), 8 * 32 + 32 + 32 * 8 + 8
        self.assertEqual(model.count_params(), patches + attention + perceptron + 3 * 2 * 8 + 8 * 10 + 10)

    def test_a_permutation_of_the_patches_changes_the_logits(self):
        model = vision_transformer(3, input_shape=(4, 4, 1), patch=2, depth=1, width=8, seed=0, pixel_range=None)
        image = np.random.default_rng(0).normal(size=(1, 4, 4, 1)).astype(np.float32)
        moved = image[:, [2, 3, 0, 1]]
        self.assertGreater(np.max(np.abs(model(image) - model(moved))), 1e-4)

    def test_every_layer_has_a_rule_of_the_fast_engine(self):
        model = vision_transformer(3, input_shape=(4, 4, 1), depth=1, width=8, seed=0, pixel_range=None)
        images = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)
        labels = np.asarray([0, 2, 1])
        found = clipped_sum.clipped_gradient_sum(
            model, oracles.cross_entropy, images, labels, l2_norm_clip=0.5, engine="book_keeping"
        )
        _, expected = oracles.clipped_sum(model, oracles.cross_entropy, images, labels, 0.5)
        for value, reference in zip(found.values, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-4, atol=2e-6)

    def test_the_initial_weights_are_a_function_of_the_seed(self):
        first, again, other = (vision_transformer(3, depth=1, seed=seed).get_weights() for seed in (1, 1, 2))
        for value, expected, different in zip(first, again, other, strict=True):
            np.testing.assert_array_equal(value, expected)
            self.assertTrue(np.ptp(value) == 0 or np.any(value != different))

    @parameterized.parameters(
        ({"patch": 3}, "`patch` must divide"),
        ({"width": 6}, "`width` must be a multiple of 4"),
        ({"width": 8, "heads": 3}, "`width` must be"),
        ({"depth": 0}, "`depth`"),
    )
    def test_bad_arguments_are_refused(self, options, message):
        with self.assertRaisesRegex(ValueError, message):
            vision_transformer(10, **options)


if __name__ == "__main__":
    absltest.main()
