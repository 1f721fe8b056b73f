import keras
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.optimizers import foreign_arguments


class ForeignArgumentsTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"max_grad_norm": 1.0, "noise_multiplier": 1.0, "batch_size": 8}, "`max_grad_norm` is.*`l2_norm_clip`"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "num_microbatches": 8}, "`num_microbatches` is.*clipped alone"),
        ({"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "expected_batch_size": 8}, "`expected_batch_size` is.*`batch_"),
        ({"l2_norm_clip": 1.0, "target_epsilon": 3.0, "batch_size": 8}, "`target_epsilon` is.*noise_multiplier_for"),
    )
    def test_an_optimizer_answers_with_its_own_names(self, arguments, message):
        with self.assertRaisesRegex(ValueError, f"{message}.*Received: "):
            noisy_sgd.DPSGD(0.1, **arguments)

    @parameterized.parameters("compile", "fit")
    def test_so_does_a_model(self, method):
        inputs = keras.Input((2,))
        model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(1)(inputs))
        optimizer = noisy_sgd.DPSGD(0.1, 1.0, 1.0, 8)
        model.compile(optimizer, "mse")
        arguments = (optimizer, "mse") if method == "compile" else (None, None)
        with self.assertRaisesRegex(ValueError, "`num_microbatches` is another library's.*Received: num_microbatches="):
            getattr(model, method)(*arguments, num_microbatches=4)
        with self.assertRaisesRegex(TypeError, "no_such_argument"):
            getattr(model, method)(*arguments, no_such_argument=4)

    def test_no_name_of_ours_is_among_them(self):
        optimizer = noisy_sgd.DPSGD(0.1, 1.0, 1.0, 8)
        self.assertEmpty(set(foreign_arguments.OURS) & set(optimizer.get_config()))


if __name__ == "__main__":
    absltest.main()
