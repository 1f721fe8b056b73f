"""SGD with noise: Noisy-SGD (eq. (11) of the paper), without clipping, and DP-SGD (eq. (2)), with it.

NoisySGD    w_{k+1} = w_k - lr * ( (1/B) sum_i grad loss_i(w_k) + N(0, s^2 I) ),      s = noise_std = sigma / B
DPSGD       w_{k+1} = w_k - lr * (1/B) ( sum_i clip_C(grad loss_i(w_k)) + N(0, sigma^2 C^2 I) )

optimizer = noisy_sgd.NoisySGD(learning_rate=0.5, noise_std=6e-4, seed=0)
model.compile(optimizer, loss)          # any Keras model, on one device or under a tf.distribute strategy

optimizer = noisy_sgd.DPSGD(learning_rate=4.0, l2_norm_clip=1.0, noise_multiplier=3.0, batch_size=4096)
model = noisy_sgd.PrivateModel(inputs, outputs)
model.compile(optimizer, loss, microbatch_size=64)

Covered by tests/optimizers/noisy_sgd_test.py and dp_sgd_test.py.
"""

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.mechanisms import correlated, gaussian
from noisy_sgd.optimizers import noised, privatized


@keras.saving.register_keras_serializable(package="noisy_sgd")
class NoisySGD(noised.Noised, keras.optimizers.SGD):
    """SGD plus Gaussian noise on the mean gradient (eq. (11)).

    The noise of step k is a function of (seed, k): the same on every replica of a tf.distribute strategy, each of which
    adds its share, so that the summed gradient contains the noise once. A resumed optimizer continues the sequence.
    Momentum, Nesterov and weight decay act as in Keras' SGD, on the noised gradient.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
        noise_std: standard deviation of the noise added to each coordinate of the mean gradient (sigma / B); >= 0. An
            array broadcasts against every weight. A variable once the optimizer is built:
            `optimizer.noise_std.assign(...)`.
        seed: integer, the seed of the noise.
        momentum: float in [0, 1]. Defaults to 0.0.
        nesterov: whether to use Nesterov momentum. Defaults to False.
        geometry: "isotropic" noise Z; "multiplicative" noise Z * w; or "mirrored" noise (eq. (18)), one draw Z per
            step, +Z * w for the plus and -Z * w for the minus weights of variables [..., 2, d]. Defaults to
            "isotropic".
        noise: a `noisy_sgd.CorrelatedNoise`: Z is then a sum of the draws of this step and of those before it, from
            step 0 on. Defaults to None, independent noise.
        weight_decay: Keras' decoupled weight decay. Defaults to None.
        name: Defaults to "noisy_sgd".
        **kwargs: `use_ema` and `ema_momentum` as in Keras.

    Raises:
        ValueError: for an argument out of range, or one of Keras' that would break the noise (see `noised.Noised`).
    """

    def __init__(
        self,
        learning_rate,
        noise_std,
        *,
        seed,
        momentum=0.0,
        nesterov=False,
        geometry="isotropic",
        noise=None,
        weight_decay=None,
        name="noisy_sgd",
        **kwargs,
    ):
        try:
            initial = np.asarray(noise_std, dtype=np.float64)
        except (TypeError, ValueError):
            initial = np.nan
        if not np.all(np.isfinite(initial)) or np.any(initial < 0):
            raise ValueError(f"`noise_std` must be finite and at least 0. Received: noise_std={noise_std!r}")
        if geometry not in gaussian.GEOMETRIES:
            raise ValueError(f"`geometry` must be one of {gaussian.GEOMETRIES}. Received: geometry={geometry!r}")
        coefficients = correlated.coefficients_of(noise)
        super().__init__(
            learning_rate,
            seed=checks.seed("seed", seed),
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )
        self._initial_noise_std = initial
        self._noise_std = None
        self.geometry = geometry
        self.noise, self._coefficients = noise, coefficients

    def build(self, variables):
        """Creates the momentum slots and the `noise_std` variable, in the weights' precision."""
        if self.built:
            return
        super().build(variables)
        dtype = "float64" if any(variable.dtype == "float64" for variable in variables) else "float32"
        initial = self._initial_noise_std
        self._noise_std = self.add_variable(
            shape=initial.shape,
            initializer=lambda shape, dtype: tf.constant(initial, dtype=dtype),
            dtype=dtype,
            name="noise_std",
        )

    def rekey(self, seed: int) -> None:
        """Takes another seed's noise, for another run of the same compiled step.

        Under a strategy of several workers, all of them call it and take the chief's key.

        Raises:
            ValueError: if the seed is not an integer.
        """
        self._take_noise_of(checks.seed("seed", seed))

    @property
    def noise_std(self):
        """Standard deviation of the noise on the mean gradient: a variable once built."""
        return self._initial_noise_std if self._noise_std is None else self._noise_std

    def apply(self, grads, trainable_variables=None):
        """One step: adds this step's noise to the mean gradient, then updates the weights as Keras' SGD does.

        Under tf.distribute, called on each replica with its part of the mean gradient; the parts are summed.

        Args:
            grads: gradients, one per variable; None for a variable without one, which gets no noise.
            trainable_variables: the variables. Defaults to those the optimizer was built with.
        """
        grads, variables = list(grads), self._variables_of(trainable_variables)
        present = [index for index, gradient in enumerate(grads) if gradient is not None]
        noised_gradients = self.noised(
            [tf.convert_to_tensor(grads[index]) for index in present],
            [tf.convert_to_tensor(variables[index]) for index in present],
        )
        for index, gradient in zip(present, noised_gradients, strict=True):
            grads[index] = gradient
        super().apply(grads, variables)

    def noised(self, grads, weights, *, release=True):
        """The mean gradient with this replica's share of this step's noise, a function of (seed, iterations).

        Args:
            grads: this replica's part of the mean gradient, one tensor per weight.
            weights: the weights, which the geometries other than "isotropic" multiply the noise by.
            release: not used: nothing is private, and the noise of a step is the same in every call. Defaults to True.

        Returns:
            One tensor per weight.
        """
        query = gaussian.UnclippedGaussianSumQuery(
            tf.convert_to_tensor(self._noise_std),
            self._noise_key.variable,
            self.geometry,
            None if self.geometry == "isotropic" else weights,
            self._coefficients,
        )
        return query.get_noised_result(grads, self._draw())[0]

    def get_config(self):
        """The arguments that rebuild this optimizer."""
        value = self._initial_noise_std if self._noise_std is None else np.asarray(self._noise_std)
        noise = None if self.noise is None else keras.saving.serialize_keras_object(self.noise)
        return {**super().get_config(), "noise_std": value.tolist(), "geometry": self.geometry, "noise": noise}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The optimizer of a `get_config`."""
        noise = keras.saving.deserialize_keras_object(config.get("noise"), custom_objects=custom_objects)
        return super().from_config({**config, "noise": noise}, custom_objects=custom_objects)


@keras.saving.register_keras_serializable(package="noisy_sgd")
class DPSGD(privatized.PrivateUpdate, keras.optimizers.SGD):
    """DP-SGD (eq. (2)): takes a sum of clipped per-example gradients, adds noise, divides by its own batch size.

    See `noisy_sgd.PrivateUpdate` for the noise, its key, and what is refused.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
        l2_norm_clip: C, the bound on each example's gradient; positive. Infinity only without noise.
        noise_multiplier: sigma, the noise's standard deviation in units of C; >= 0. Without noise nothing is private.
        batch_size: B, the nominal size of a logical batch, and the divisor whatever the batch really holds; a positive
            integer.
        seed: None draws a secret noise key; an integer is for tests. Defaults to None.
        momentum: float in [0, 1]. Defaults to 0.0.
        nesterov: whether to use Nesterov momentum. Defaults to False.
        clipping: how norms become clip factors: "flat", "automatic", "normalized", "per_layer", or a list of bounds,
            one per layer. Defaults to "flat".
        adaptive_clipping: a `noisy_sgd.AdaptiveClipping`, by which the bound is learned. Defaults to None.
        noise: a recipe of other noise, such as `noisy_sgd.CorrelatedNoise`. Defaults to None, independent Gaussian
            noise.
        weight_decay: Keras' decoupled weight decay; it does not depend on the data. Defaults to None.
        name: Defaults to "dp_sgd".
        **kwargs: `use_ema` and `ema_momentum` as in Keras.

    Raises:
        ValueError: for an argument out of range, or one of Keras' that would break clipping or noise.
    """

    def __init__(
        self,
        learning_rate,
        l2_norm_clip,
        noise_multiplier,
        batch_size,
        *,
        seed=None,
        momentum=0.0,
        nesterov=False,
        clipping="flat",
        adaptive_clipping=None,
        noise=None,
        weight_decay=None,
        name="dp_sgd",
        **kwargs,
    ):
        super().__init__(
            learning_rate,
            l2_norm_clip,
            noise_multiplier,
            batch_size,
            seed=seed,
            clipping=clipping,
            adaptive_clipping=adaptive_clipping,
            noise=noise,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )
