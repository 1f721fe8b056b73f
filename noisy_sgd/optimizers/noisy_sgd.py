"""Noisy-SGD: SGD with Gaussian noise on the mean gradient, and no clipping (eq. (11) of the paper).

w_{k+1} = w_k - lr * ( (1/B) sum_i grad loss_i(w_k) + N(0, s^2 I) ),      s = noise_std = sigma / B

optimizer = noisy_sgd.NoisySGD(learning_rate=0.5, noise_std=6e-4, seed=0)
model.compile(optimizer, loss)          # any Keras model, on one device or under a tf.distribute strategy
"""

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd.mechanisms import gaussian
from noisy_sgd.optimizers import foreign_arguments, noise_key

_NOT_PER_EXAMPLE = "it clips the batch's gradient on each replica; use noisy_sgd.DPSGD to clip each example's"
REFUSED = {
    "clipnorm": _NOT_PER_EXAMPLE,
    "clipvalue": _NOT_PER_EXAMPLE,
    "global_clipnorm": _NOT_PER_EXAMPLE,
    "gradient_accumulation_steps": "noise enters once per logical batch; use PrivateModel.compile(microbatch_size=...)",
    "loss_scale_factor": "clipping and noise must see bare gradients; use mixed_bfloat16, which needs no scaling",
    "ema_overwrite_frequency": "it fails under tf.distribute; leave it out",
}


def refuse(arguments: dict) -> None:
    """Refuses Keras' arguments that break the noise, by name.

    Raises:
        ValueError: naming the first one that is set.
    """
    for name, value in arguments.items():
        if value is not None and name in REFUSED:
            raise ValueError(f"`{name}` is not supported: {REFUSED[name]}. Received: {name}={value!r}")


@keras.saving.register_keras_serializable(package="noisy_sgd")
class NoisySGD(keras.optimizers.SGD):
    """SGD plus Gaussian noise on the mean gradient (eq. (11)).

    The noise of step k is a function of (seed, k): the same on every replica of a tf.distribute strategy, each of which
    adds its share, so that the summed gradient holds it once; a resumed optimizer continues it. Momentum, Nesterov and
    weight decay act as in Keras' SGD, on the noised gradient.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
        noise_std: standard deviation of the noise added to each coordinate of the mean gradient (sigma / B); >= 0. An
            array broadcasts against every weight. A variable once built: `optimizer.noise_std.assign(...)`.
        seed: integer, the noise's.
        momentum: float in [0, 1]. Defaults to 0.0.
        nesterov: whether to use Nesterov momentum. Defaults to False.
        geometry: "isotropic" noise Z; "multiplicative" noise Z * w; or "mirrored" noise (eq. (18)), one draw Z a step,
            +Z * w for the plus and -Z * w for the minus weights of variables [..., 2, d]. Defaults to "isotropic".
        weight_decay: Keras' decoupled weight decay. Defaults to None.
        name: Defaults to "noisy_sgd".
        **kwargs: `use_ema` and `ema_momentum` as in Keras.

    Raises:
        ValueError: for an argument out of range, or one of Keras' that would break the noise (clipnorm, clipvalue,
            global_clipnorm, gradient_accumulation_steps, loss_scale_factor, ema_overwrite_frequency).
    """

    def __new__(cls, *args, **kwargs):
        """Before Python asks for the arguments that are missing under their own names."""
        foreign_arguments.refuse(kwargs)
        return super().__new__(cls)

    def __init__(
        self,
        learning_rate,
        noise_std,
        *,
        seed,
        momentum=0.0,
        nesterov=False,
        geometry="isotropic",
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
        _check_seed(seed)
        self._initialize(learning_rate, seed, momentum, nesterov, weight_decay, name, kwargs)
        self._initial_noise_std = initial
        self._noise_std = None
        self.geometry = geometry

    def _initialize(self, learning_rate, seed, momentum, nesterov, weight_decay, name, kwargs):
        refuse(kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key not in REFUSED}
        super().__init__(
            learning_rate, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, name=name, **kwargs
        )
        self.seed = None if seed is None else int(seed)
        self._noise_key = noise_key.NoiseKey(self.seed)

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

        Under a strategy of several workers all of them call it, and take the chief's.

        Raises:
            ValueError: for what is not an integer.
        """
        _check_seed(seed)
        self._take_noise_of(seed)

    def _take_noise_of(self, seed):
        self._noise_key.assign(seed)
        self.seed = self._noise_key.seed

    @property
    def noise_std(self):
        """Standard deviation of the noise on the mean gradient: a variable once built."""
        return self._initial_noise_std if self._noise_std is None else self._noise_std

    def apply(self, grads, trainable_variables=None):
        """One step: adds this step's noise to the mean gradient, then updates the weights as Keras' SGD does.

        Under tf.distribute, called on each replica with its part of the mean gradient; the parts are summed.

        Args:
            grads: gradients, one a variable; None for a variable without one, which gets no noise.
            trainable_variables: the variables. Defaults to those the optimizer was built with.
        """
        grads, variables = list(grads), self._variables_of(trainable_variables)
        present = [index for index, gradient in enumerate(grads) if gradient is not None]
        noised = self.noised(
            [tf.convert_to_tensor(grads[index]) for index in present],
            [tf.convert_to_tensor(variables[index]) for index in present],
        )
        for index, gradient in zip(present, noised, strict=True):
            grads[index] = gradient
        super().apply(grads, variables)

    def _variables_of(self, trainable_variables):
        if trainable_variables is None:
            return list(self._trainable_variables)
        variables = list(trainable_variables)
        if not self.built:
            self.build(variables)
        return variables

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
        )
        return query.get_noised_result(grads, self._global_state())[0]

    def _global_state(self) -> gaussian.GlobalState:
        replica_context = tf.distribute.get_replica_context()
        replicas = 1 if replica_context is None else replica_context.num_replicas_in_sync
        return gaussian.GlobalState(step=tf.convert_to_tensor(self.iterations), share=1.0 / replicas)

    def get_config(self):
        """The arguments that rebuild this optimizer."""
        config = {name: value for name, value in super().get_config().items() if name not in REFUSED}
        value = self._initial_noise_std if self._noise_std is None else np.asarray(self._noise_std)
        config.update(noise_std=value.tolist(), seed=self.seed, geometry=self.geometry)
        return config


def _check_seed(seed):
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        shown = f"{len(seed)} bytes" if isinstance(seed, bytes) else repr(seed)
        raise ValueError(f"`seed` must be an integer. Received: seed={shown}")
