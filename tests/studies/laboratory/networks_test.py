import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.studies.laboratory import images, networks, settings


class NetworksTest(parameterized.TestCase):
    @parameterized.parameters(*settings.NETWORKS)
    def test_a_seed_makes_a_network_for_the_images(self, name):
        data = images.load("digits", 0, num_train_examples=20)
        build = networks.builder(name, data)
        first, again, other = build(1), build(1), build(2)
        self.assertEqual(first(data.train.images).shape, (20, 10))
        for value, expected in zip(first.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(value, expected)
        differ = [np.any(one != two) for one, two in zip(first.get_weights(), other.get_weights(), strict=True)]
        self.assertTrue(any(differ))

    def test_width_is_the_perceptron_s(self):
        data = images.load("digits", 0, num_train_examples=20)
        self.assertEqual(networks.builder("mlp", data, width=7)(0).count_params(), 64 * 7 + 7 + 70 + 10)
        with self.assertRaisesRegex(ValueError, "`width`.*Received"):
            networks.builder("cnn", data, width=7)
        with self.assertRaisesRegex(ValueError, "`network`.*Received"):
            networks.builder("cmn", data)


if __name__ == "__main__":
    absltest.main()
