import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest

from noisy_sgd.optimizers import sgd
from noisy_sgd.studies.laboratory import derivatives
from noisy_sgd.training import private_model

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(12, 4)).astype(np.float32), RANDOM.integers(0, 3, 12).astype(np.int32)


def tiny():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(5, activation="tanh")(inputs)
    model = private_model.PrivateModel(inputs, keras.layers.Dense(3)(hidden))
    model.compile(sgd.NoisySGD(0.1, 0.0, seed=0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def mean_loss(model, flat):
    """The loss of weights in one vector, in float64 and NumPy."""
    shapes = [tuple(weight.shape) for weight in model.trainable_weights]
    splits = np.cumsum([np.prod(shape) for shape in shapes])[:-1].astype(int)
    first, bias, second, last = (
        part.reshape(shape) for part, shape in zip(np.split(flat, splits), shapes, strict=True)
    )
    logits = np.tanh(X.astype(np.float64) @ first + bias) @ second + last
    return np.mean(np.log(np.sum(np.exp(logits), axis=1)) - logits[np.arange(len(Y)), Y])


class DerivativesTest(absltest.TestCase):
    def test_lanczos_finds_the_top_of_the_full_hessian(self):
        model = tiny()
        flat = np.concatenate([weight.numpy().ravel() for weight in model.trainable_weights]).astype(np.float64)
        steps = 1e-4 * np.eye(flat.size)
        # Central differences of NumPy's loss, entry by entry.
        hessian = np.array(
            [
                [
                    sum(
                        sign * other * mean_loss(model, flat + sign * one + other * two)
                        for sign in (1, -1)
                        for other in (1, -1)
                    )
                    for two in steps
                ]
                for one in steps
            ]
        ) / (4 * 1e-8)
        top = np.linalg.eigvalsh(hessian)[-1]
        found = derivatives.Derivatives(model).top_of_hessian(X, Y, tolerance=1e-6)
        self.assertAlmostEqual(found / top, 1.0, delta=1e-4)

    def test_gradients_are_those_of_single_examples(self):
        model = tiny()
        found = derivatives.Derivatives(model).gradients(X, Y)
        for row, image, label in zip(found, X, Y, strict=True):
            with tf.GradientTape() as tape:
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(label[None], model(image[None]))
            expected = [
                part.numpy().ravel() for part in tape.gradient(loss, [w.value for w in model.trainable_weights])
            ]
            np.testing.assert_allclose(row, np.concatenate(expected), rtol=1e-5, atol=1e-6)

    def test_derivatives_follow_the_weights(self):
        model = tiny()
        compiled = derivatives.Derivatives(model)
        before = compiled.top_of_hessian(X, Y), compiled.gradients(X, Y)
        other = tiny()
        for weight in other.trainable_weights:
            weight.assign(2 * weight)
        compiled.assign(other.get_weights())
        after = derivatives.Derivatives(other)
        self.assertNotAlmostEqual(before[0], after.top_of_hessian(X, Y), places=2)
        self.assertEqual(compiled.top_of_hessian(X, Y), after.top_of_hessian(X, Y))
        np.testing.assert_array_equal(compiled.gradients(X, Y), after.gradients(X, Y))


class CovarianceTest(absltest.TestCase):
    def test_spectrum_is_that_of_the_covariance_in_a_loop(self):
        gradients = RANDOM.normal(size=(9, 6)).astype(np.float32)
        mean = gradients.mean(axis=0)
        matrix = np.zeros((6, 6))
        for gradient in gradients:
            matrix += np.outer(gradient - mean, gradient - mean) / 9
        found = derivatives.covariance(gradients, count=4)
        self.assertAlmostEqual(found.trace, np.trace(matrix), places=5)
        np.testing.assert_allclose(found.largest, np.linalg.eigvalsh(matrix)[::-1][:4], rtol=1e-5)
        self.assertEqual(found.top, found.largest[0])

    def test_equal_gradients_have_no_variance(self):
        found = derivatives.covariance(np.ones((5, 3), np.float32), count=2)
        self.assertEqual((found.trace, found.largest), (0.0, (0.0, 0.0)))


if __name__ == "__main__":
    absltest.main()
