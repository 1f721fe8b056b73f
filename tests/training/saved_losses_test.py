import inspect

import keras
import numpy as np
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.training import saved_losses

RNG = np.random.default_rng(0)
Y, P = (RNG.uniform(0.1, 0.9, (6, 4)).astype(np.float32) for _ in range(2))


def with_other_arguments():
    """Every loss of Keras whose arguments are numbers, each with other numbers than its own."""
    for name in sorted(dir(keras.losses)):
        kind = getattr(keras.losses, name)
        if inspect.isclass(kind) and issubclass(kind, keras.losses.Loss):
            arguments = {
                key: parameter.default / 2 + 0.1
                for key, parameter in inspect.signature(kind).parameters.items()
                if isinstance(parameter.default, float)
            }
            if arguments:
                yield kind(**arguments)


class SavedLossesTest(parameterized.TestCase):
    def test_every_loss_of_keras_comes_back(self):
        losses = [*with_other_arguments(), keras.losses.CosineSimilarity(axis=1), keras.losses.MeanSquaredError()]
        self.assertIn("Huber", {type(loss).__name__ for loss in losses})
        for loss in losses:
            again = keras.saving.deserialize_keras_object(saved_losses.serialize(loss))
            self.assertIs(type(again), type(loss))
            targets = np.arange(6) % 4 if "Circle" in type(loss).__name__ or "Generalized" in type(loss).__name__ else Y
            np.testing.assert_array_equal(again(targets, P), loss(targets, P), err_msg=type(loss).__name__)

    @parameterized.parameters("save", "clone")
    def test_a_model_goes_on_with_its_losses(self, way):
        inputs = keras.Input((4,))
        outputs = [keras.layers.Dense(4)(inputs), keras.layers.Dense(4)(inputs)]
        model = noisy_sgd.PrivateModel(inputs, outputs)
        model.compile(noisy_sgd.DPSGD(0.1, 1.0, 0.0, 6), [keras.losses.Huber(0.05), "mse"])
        if way == "save":
            path = self.create_tempdir().full_path + "/model.keras"
            model.save(path)
            again = keras.models.load_model(path)
        else:
            again = keras.models.clone_model(model)
            again.set_weights(model.get_weights())
        found, expected = (each.evaluate(P, [Y, Y], verbose=0) for each in (again, model))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


if __name__ == "__main__":
    absltest.main()
