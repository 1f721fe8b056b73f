"""Seeds of layers."""

from absl.testing import absltest

from noisy_sgd.models import initialization


class LayerSeedTest(absltest.TestCase):
    def test_is_a_function_of_seed_and_name(self):
        names = ["stem", "conv1", "conv2", "1conv", "logits"]
        seeds = [initialization.layer_seed(seed, name) for seed in (0, 1, -1, 2**70) for name in names]
        self.assertLen(set(seeds), len(seeds))
        self.assertEqual(seeds[0], initialization.layer_seed(0, "stem"))
        self.assertTrue(all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds))

    def test_no_seed_leaves_the_choice_to_keras(self):
        self.assertIsNone(initialization.layer_seed(None, "stem"))


if __name__ == "__main__":
    absltest.main()
