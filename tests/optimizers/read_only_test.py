from absl.testing import absltest, parameterized

import noisy_sgd


class ReadOnlyTest(parameterized.TestCase):
    @parameterized.parameters(
        "noise_multiplier", "l2_norm_clip", "batch_size", "clipping", "adaptive_clipping", "noise", "noise_std"
    )
    def test_setting_it_names_the_way_out(self, name):
        optimizer = noisy_sgd.DPSGD(0.1, 1.0, 1.5, 8)
        before = getattr(optimizer, name)
        message = f"`{name}` of a DPSGD must.*new DPSGD and `compile`.*Received: {name}=2"
        with self.assertRaisesRegex(AttributeError, message):
            setattr(optimizer, name, 2)
        self.assertEqual(getattr(optimizer, name), before)


if __name__ == "__main__":
    absltest.main()
