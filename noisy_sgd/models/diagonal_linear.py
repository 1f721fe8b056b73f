"""Diagonal linear networks as a Keras model, many independent runs at once (sections 2.2 and 3.3).

prediction = <w+^2 - w-^2, x>, from w+ = w- = alpha: linear in x, not in the weights. The weights of R runs are one
variable [R, 2, d] in float64 (losses reach 1e-28), plus weights first, as `NoisySGD(geometry="mirrored")` wants them
for eq. (18):

    model = diagonal_linear.DiagonalLinearNetwork(dimension=100, num_runs=5, alpha=0.1)
    predictions = model(features)                            # [n, 100] -> [n, 5]
    losses = diagonal_linear.quarter_squared_error(targets, predictions)    # [n]
"""

import keras
import numpy as np

from noisy_sgd import checks
from noisy_sgd.models import least_squares


def quarter_squared_error(targets, predictions):
    """1/4 (prediction - target)^2 per example, summed over runs: the normalization under which eq. (19) is the SDE of
    eq. (18).

    Args:
        targets: [B], or [B, runs] where every run has its own examples.
        predictions: [B, runs].

    Returns:
        Tensor [B].
    """
    return 0.5 * least_squares.half_squared_error(targets, predictions)


@keras.saving.register_keras_serializable(package="noisy_sgd")
class DiagonalLinearNetwork(keras.Model):
    """<w+^2 - w-^2, x> for R runs, in float64.

    Args:
        dimension: d.
        num_runs: R. Defaults to 1.
        alpha: scale of the initial weights; a number, or a list with one number per run. Defaults to 0.1.
        **kwargs: of `keras.Model`; `dtype` defaults to "float64".

    Raises:
        ValueError: for sizes below 1, an alpha that is not positive or of another length than `num_runs`.
    """

    def __init__(self, dimension, num_runs=1, alpha=0.1, **kwargs):
        checks.at_least("dimension", dimension, 1)
        checks.at_least("num_runs", num_runs, 1)
        scales = np.asarray(alpha, dtype=np.float64)
        holds = scales.shape in ((), (num_runs,)) and (np.isfinite(scales) & (scales > 0)).all()
        checks.require(holds, "alpha", "must be positive, a number or a list with one number per run", alpha)
        kwargs.setdefault("dtype", "float64")
        super().__init__(**kwargs)
        self.dimension, self.num_runs, self.alpha = dimension, num_runs, scales.tolist()
        initial = np.broadcast_to(scales.reshape(-1, 1, 1), (num_runs, 2, dimension))
        self.signed_weights = self.add_weight(
            shape=(num_runs, 2, dimension),
            initializer=lambda shape, dtype: keras.ops.convert_to_tensor(initial, dtype=dtype),
            name="signed_weights",
        )
        self.built = True

    def call(self, features):
        """Predictions [B, runs] for features [B, d] or [B, runs, d]."""
        return least_squares.predict(features, self.predictor())

    def predictor(self):
        """The linear predictors beta of all runs, [runs, d]."""
        squares = keras.ops.square(self.signed_weights)
        return squares[:, 0] - squares[:, 1]

    def get_config(self):
        """The arguments that rebuild this model."""
        return super().get_config() | {"dimension": self.dimension, "num_runs": self.num_runs, "alpha": self.alpha}
