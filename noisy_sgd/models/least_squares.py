"""Linear least squares as a Keras model, many independent runs at once (section 3.2).

prediction = <theta, x> for each of R parameter vectors theta, kept as one variable [R, d] in float64. The losses of
the runs add, so that one gradient holds the gradients of all runs:

    model = least_squares.LinearLeastSquares(dimension=10, num_runs=100)
    predictions = model(features)                       # [n, d] -> [n, 100]
    losses = least_squares.half_squared_error(targets, predictions)    # [n]
"""

import keras

from noisy_sgd import checks


def half_squared_error(targets, predictions):
    """1/2 (prediction - target)^2 per example, summed over runs: eq. (7) before the mean over examples.

    Args:
        targets: [B], or [B, runs] where every run has its own examples.
        predictions: [B, runs].

    Returns:
        Tensor [B].
    """
    return 0.5 * keras.ops.sum(keras.ops.square(residuals(targets, predictions)), axis=-1)


def residuals(targets, predictions):
    """Prediction minus target, [B, runs], for targets [B] or [B, runs]."""
    targets = keras.ops.cast(targets, predictions.dtype)
    return predictions - (targets if len(targets.shape) == 2 else targets[:, None])


def predict(features, coefficients):
    """<coefficients_r, x_b> for every example and run.

    Args:
        features: [B, d], or [B, runs, d] where every run has its own examples.
        coefficients: [runs, d].

    Returns:
        Tensor [B, runs].
    """
    if len(features.shape) == 2:
        return keras.ops.matmul(features, keras.ops.transpose(coefficients))
    return keras.ops.sum(features * coefficients, axis=-1)


@keras.saving.register_keras_serializable(package="noisy_sgd")
class LinearLeastSquares(keras.Model):
    """<theta, x> for R runs, in float64.

    Args:
        dimension: d.
        num_runs: R. Defaults to 1.
        **kwargs: of `keras.Model`; `dtype` defaults to "float64".

    Raises:
        ValueError: for sizes below 1.
    """

    def __init__(self, dimension, num_runs=1, **kwargs):
        checks.at_least("dimension", dimension, 1)
        checks.at_least("num_runs", num_runs, 1)
        kwargs.setdefault("dtype", "float64")
        super().__init__(**kwargs)
        self.dimension, self.num_runs = dimension, num_runs
        self.coefficients = self.add_weight(shape=(num_runs, dimension), initializer="zeros", name="coefficients")
        self.built = True

    def call(self, features):
        """Predictions [B, runs] for features [B, d] or [B, runs, d]."""
        return predict(features, self.coefficients)

    def predictor(self):
        """The linear predictors of all runs, [runs, d]."""
        return keras.ops.convert_to_tensor(self.coefficients)

    def get_config(self):
        """The arguments that rebuild this model."""
        return super().get_config() | {"dimension": self.dimension, "num_runs": self.num_runs}
