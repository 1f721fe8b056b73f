import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.models import feedforward


class FeedforwardTest(parameterized.TestCase):
    def test_parameters_are_those_of_the_published_networks(self):
        self.assertEqual(feedforward.mlp(10).count_params(), 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10)
        self.assertEqual(feedforward.mnist_cnn(10).count_params(), 26_010)
        # 3*3*16 + 16, 3*3*16*32 + 32, and 4*4*32*10 + 10 on 14x14 images.
        self.assertEqual(feedforward.cnn(10).count_params(), 9_930)

    @parameterized.parameters(feedforward.mlp, feedforward.cnn, feedforward.mnist_cnn)
    def test_weights_are_a_function_of_the_seed(self, build):
        side = 14 if build is feedforward.cnn else 28
        images = np.random.default_rng(0).integers(0, 256, (2, side, side, 1)).astype(np.uint8)
        first, again, other = (np.array(build(10, seed=seed)(images)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        self.assertGreater(np.abs(first - other).max(), 1e-3)
        self.assertEqual(first.shape, (2, 10))

    def test_layers_of_equal_shape_start_apart(self):
        model = feedforward.mlp(10, hidden=(8, 8, 8), input_shape=(2, 4, 1), seed=0)
        kernels = [np.array(weight) for weight in model.get_weights() if weight.shape == (8, 8)]
        self.assertLen(kernels, 3)
        self.assertGreater(np.abs(kernels[1] - kernels[2]).max(), 0.01)

    def test_pixels_are_rescaled_by_their_public_range(self):
        model = feedforward.mlp(3, hidden=(), input_shape=(1, 1, 1), pixel_range=(0.0, 16.0), seed=0)
        low, high = (np.array(model(np.full((1, 1, 1, 1), value))) for value in (0.0, 16.0))
        np.testing.assert_allclose(low, -high, rtol=1e-6)
        np.testing.assert_allclose(high[0], model.get_weights()[0][0], rtol=1e-6)


if __name__ == "__main__":
    absltest.main()
