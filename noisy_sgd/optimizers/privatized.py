"""A private update for any Keras optimizer: it takes a sum of clipped per-example gradients, adds noise, and divides.

    g = (1/B) ( sum_i clip_C(grad loss_i) + noise )        then the Keras optimizer's own update with g

What is added is the mechanism's: `noise=None` is Gaussian noise of noise_multiplier * C on the sum (eq. (2) of the
paper; Abadi et al. 2016). A private version of an optimizer is one line:

    class DPLion(noisy_sgd.PrivateUpdate, keras.optimizers.Lion):
        pass

    optimizer = DPLion(1e-3, l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256, weight_decay=0.01)

Covered by tests/optimizers/dp_sgd_test.py, adam_test.py and tests/visitors_test.py.
"""

import math

import keras
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.gradients import clipping as clip_functions
from noisy_sgd.mechanisms import adaptive_clipping as adaptive
from noisy_sgd.mechanisms import gaussian
from noisy_sgd.mechanisms import mechanism as mechanisms
from noisy_sgd.optimizers import noised, read_only


class PrivateUpdate(noised.Noised):
    """A mixin that makes a Keras optimizer private. It comes first: `class DPLion(PrivateUpdate, Lion)`.

    The noise on the mean gradient has standard deviation noise_multiplier * l2_norm_clip / batch_size. Clip, noise and
    batch size are read-only, so that nothing changes without the accountant. It refuses bare gradients: train a
    `noisy_sgd.PrivateModel`, or pass the `ClippedSum` of `noisy_sgd.clipped_gradient_sum` to `apply`.

    No two releases share their noise: it is a function of (key, generation, step), and a repeated step, because
    a checkpoint was restored or `iterations` assigned, starts a new generation, which no restored state undoes. Loading
    saved variables draws another key. One case is not covered: a process that is copied with its memory (`fork`, a
    snapshot of a virtual machine). Both copies hold the key and the count, so only one of them may continue.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
        l2_norm_clip: C, the bound on each example's gradient; positive. Infinity only without noise.
        noise_multiplier: sigma, the noise's standard deviation in units of C; >= 0. Without noise nothing is private.
        batch_size: B, the nominal size of a logical batch, and the divisor whatever the batch really holds; a positive
            integer.
        seed: None draws a 128-bit noise key from the operating system. It is kept out of `get_config`, saved models and
            logs: who has it can subtract the noise. An integer is for tests: the noise can be recomputed, and nothing
            is private. Defaults to None.
        clipping: how norms become clip factors: "flat", "automatic", "normalized", "per_layer", or a list of bounds,
            one per layer (see `noisy_sgd.clipped_gradient_sum`); all have the sensitivity C. Defaults to "flat".
        adaptive_clipping: a `noisy_sgd.AdaptiveClipping` (with clipping="flat"): the bound starts at `l2_norm_clip` and
            is learned; `current_l2_norm_clip` is its current value. Defaults to None, one bound for all steps.
        noise: a recipe of other noise, such as `noisy_sgd.CorrelatedNoise`. Defaults to None, independent Gaussian
            noise.
        **kwargs: the Keras optimizer's own.

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
        clipping="flat",
        adaptive_clipping=None,
        noise=None,
        **kwargs,
    ):
        bound, multiplier = _check_noise(l2_norm_clip, noise_multiplier)
        batch_size = checks.count("batch_size", batch_size)
        clipping = clip_functions.bounds_as_tuple(clipping)
        clip = clip_functions.clip_function(clipping, bound)
        recipe = _recipe(adaptive_clipping, noise, clipping)
        super().__init__(learning_rate, seed=seed, **kwargs)
        self._l2_norm_clip = bound
        self._noise_multiplier = multiplier
        self._batch_size = batch_size
        self._clipping = clipping
        self._clip = clip
        self._adaptive_clipping, self._noise = adaptive_clipping, noise
        self._mechanism = recipe.make(bound, multiplier, batch_size, self._noise_key.variable)
        self._state_variables = {}

    def build(self, variables):
        """Creates the Keras optimizer's variables, and those of the mechanism's state."""
        if self.built:
            return
        super().build(variables)
        self._state_variables = {
            name: self.add_variable(
                shape=(),
                initializer=keras.initializers.Constant(value),
                dtype="float32",
                aggregation="only_first_replica",
                name=name,
            )
            for name, value in self._mechanism.initial_state().items()
        }

    @property
    def mechanism(self) -> mechanisms.Mechanism:
        """What is added, and what it costs: the event of a `noisy_sgd.privacy.Plan`."""
        return self._mechanism

    @read_only.attribute
    def l2_norm_clip(self) -> float:
        """C, the bound on each example's gradient; where it is learned, the bound of the first step."""
        return self._l2_norm_clip

    @property
    def current_l2_norm_clip(self) -> float | tf.Tensor:
        """The bound of the step to come: a number, or a scalar tensor where it changes."""
        return self._mechanism.clip_bound(self._state())

    @read_only.attribute
    def adaptive_clipping(self) -> adaptive.AdaptiveClipping | None:
        """How the bound is learned, or None."""
        return self._adaptive_clipping

    @read_only.attribute
    def noise(self) -> mechanisms.Recipe | None:
        """The recipe of the noise, or None for independent Gaussian noise."""
        return self._noise

    @read_only.attribute
    def noise_multiplier(self) -> float:
        """sigma, the noise's standard deviation on the sum in units of C."""
        return self._noise_multiplier

    @read_only.attribute
    def batch_size(self) -> int:
        """B, the divisor of the noised sum."""
        return self._batch_size

    @read_only.attribute
    def clipping(self) -> str | tuple[float, ...]:
        """How norms become clip factors."""
        return self._clipping

    @property
    def clip(self) -> clip_functions.ClipFunction:
        """The clip function that a sum needs to be clipped with for `apply`, with the current bound."""
        bound = self.current_l2_norm_clip
        # A mechanism that changes the bound keeps it positive.
        return clip_functions.flat_at(bound) if tf.is_tensor(bound) else self._clip

    @read_only.attribute
    def noise_std(self) -> float | tf.Tensor:
        """Standard deviation of the noise on the mean gradient; noise_multiplier * the current bound / batch_size.

        Where the noise is correlated over steps, that of a step that has all its draws.
        """
        return self._mechanism.stddev(self._state()) / self._batch_size

    @property
    def hidden_variables(self) -> list[tf.Variable]:
        """State that holds facts of the examples without noise; by default none.

        Neither Keras nor TensorFlow saves it. The checkpoints of a recorded run do, which only their owner can read.
        """
        return []

    @property
    def event(self):
        """The `dp_accounting.DpEvent` of one step; noise that is correlated over steps has none, and raises."""
        return self._mechanism.event

    @property
    def has_statistic(self) -> bool:
        """Whether the mechanism asks for a statistic of the norms beside the clipped sum."""
        return self.statistic(tf.zeros([0])) is not None

    def statistic(self, norms, present=None) -> tf.Tensor | None:
        """The sum over these examples of the statistic that the mechanism asks for, or None where it asks for none.

        Args:
            norms: [B], before clipping.
            present: [B] bool, False for padding. Defaults to no padding.
        """
        return self._mechanism.statistic(norms, present, self._state())

    def apply(self, grads, trainable_variables=None):
        """One step from a `ClippedSum`.

        Under tf.distribute, called on each replica with its part of the clipped sum; the parts are summed.

        Args:
            grads: a `noisy_sgd.ClippedSum` whose bound is this optimizer's `current_l2_norm_clip`.
            trainable_variables: the variables its values belong to. Defaults to those the optimizer was built with.

        Raises:
            TypeError: for bare gradients.
            ValueError: for a sum clipped to another bound.
        """
        if not isinstance(grads, clip_functions.ClippedSum):
            raise TypeError(
                f"`{type(self).__name__}` needs gradients clipped per example, and a plain training step has only "
                "their mean: build the model as `noisy_sgd.PrivateModel(inputs, outputs)`, or pass the result of "
                f"`noisy_sgd.clipped_gradient_sum`. Received: grads of type {type(grads).__name__}"
            )
        variables = self._variables_of(trainable_variables)
        values, checks_of_bound = grads.values, self._checks_of_bound(grads.l2_sensitivity)
        if checks_of_bound:
            with tf.control_dependencies(checks_of_bound):
                values = [tf.identity(value) for value in values]
        statistic = self.statistic(grads.norms, grads.present) if grads.statistic is None else grads.statistic
        state = self._state()
        sums, statistic = self._mechanism.add_noise(values, statistic, state, self._release())
        replica_context = tf.distribute.get_replica_context()
        if statistic is not None and replica_context is not None:
            statistic = replica_context.all_reduce(tf.distribute.ReduceOp.SUM, statistic)
        super().apply(self._mean(sums), variables)
        following = self._mechanism.next_state(statistic, state)
        for name, variable in self._state_variables.items():
            variable.assign(following[name])

    def noised(self, grads, weights, *, release=True):
        """This replica's part of the noised mean gradient, from its part of the clipped sum.

        Every call counts as a release, as `apply` does: its noise is used for nothing else, so that a second call at
        the same step, or at one that was released before, gets other noise. It takes no step; `apply` does.

        Args:
            grads: this replica's part of the clipped sum, one tensor per weight.
            weights: not used.
            release: False shows the noise that the next release will add; such noise must not be released. Defaults to
                True.

        Returns:
            One tensor per weight.
        """
        statistic = self.statistic(tf.zeros([0]))
        return self._mean(self._mechanism.add_noise(grads, statistic, self._state(), self._release(release))[0])

    def rekey(self, seed: int | bytes | None, first_step: int = 0) -> None:
        """Takes other noise, for another run of the same compiled step.

        Under a strategy of several workers, all of them call it and take the chief's key. The same integer or bytes
        replay the same noise from the current step on: use that only for the same data.

        Args:
            seed: an integer; bytes of `keys.secret`, which then are in no configuration and no saved model, as if the
                optimizer had been made with seed=None; or None for a new secret from the operating system.
            first_step: the first step of the attempt whose noise it is; noise that is correlated over steps uses no
                draw from before it. Defaults to 0.

        Raises:
            ValueError: for anything else, or a secret of less than 16 bytes.
        """
        self._take_noise_of(seed, first_step)

    def load_own_variables(self, store):
        """Loads saved variables and replaces a secret noise key, so that repeated steps never get the same noise."""
        super().load_own_variables(store)
        if self.seed is None:
            self.rekey(None)

    def get_config(self):
        """The arguments that rebuild this optimizer, without a secret noise key."""
        config = super().get_config()
        recipes = {"adaptive_clipping": self.adaptive_clipping, "noise": self.noise}
        return {
            **config,
            "l2_norm_clip": self.l2_norm_clip,
            "noise_multiplier": self.noise_multiplier,
            "batch_size": self.batch_size,
            "clipping": self.clipping if isinstance(self.clipping, str) else list(self.clipping),
            **{
                name: None if recipe is None else keras.saving.serialize_keras_object(recipe)
                for name, recipe in recipes.items()
            },
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The optimizer of a `get_config`."""
        recipes = {
            name: keras.saving.deserialize_keras_object(config.get(name), custom_objects=custom_objects)
            for name in ("adaptive_clipping", "noise")
        }
        return super().from_config({**config, **recipes}, custom_objects=custom_objects)

    def _state(self) -> mechanisms.State:
        if not self._state_variables:
            return self._mechanism.initial_state()
        return {name: tf.convert_to_tensor(variable) for name, variable in self._state_variables.items()}

    def _release(self, release: bool = True) -> mechanisms.Draw:
        draw = self._draw()
        generation, first = self._noise_key.place(draw.step, release=release)
        return draw._replace(generation=generation, first=first)

    def _checks_of_bound(self, l2_sensitivity):
        """Refuses another bound at once, or by the returned operations where only the graph knows the bounds."""
        current = self.current_l2_norm_clip
        if any(tf.is_tensor(bound) and not hasattr(bound, "numpy") for bound in (l2_sensitivity, current)):
            return [tf.debugging.assert_near(l2_sensitivity, current, rtol=1e-6, atol=0.0, message=_ANOTHER_BOUND)]
        changes = tf.is_tensor(current)
        if not math.isclose(l2_sensitivity, current, rel_tol=1e-6 if changes else 1e-9):
            name = "current_l2_norm_clip" if changes else "l2_norm_clip"
            raise ValueError(
                f"{_ANOTHER_BOUND}: {name}={float(current)}. Received: l2_sensitivity={float(l2_sensitivity)}"
            )
        return []

    def _mean(self, sums):
        divisors = {dtype: tf.cast(self._batch_size, dtype) for dtype in {value.dtype for value in sums}}
        return [value / divisors[value.dtype] for value in sums]


def needs_clipped_sum(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the optimizer takes a sum of clipped gradients, with its noise, and nothing else."""
    return isinstance(optimizer, PrivateUpdate)


def state_variables(optimizer: keras.optimizers.Optimizer) -> list:
    """All state of an optimizer between two steps: what Keras saves, and what is hidden from it."""
    hidden = optimizer.hidden_variables if needs_clipped_sum(optimizer) else []
    return [*optimizer.variables, *hidden]


_ANOTHER_BOUND = "`grads` must be clipped to the optimizer's own bound, since the noise is scaled to it"


def _recipe(adaptive_clipping, noise, clipping) -> mechanisms.Recipe:
    if adaptive_clipping is not None and not isinstance(adaptive_clipping, adaptive.AdaptiveClipping):
        raise ValueError(
            "`adaptive_clipping` must be a noisy_sgd.AdaptiveClipping or None. "
            f"Received: adaptive_clipping={adaptive_clipping!r}"
        )
    if noise is not None and not isinstance(noise, mechanisms.Recipe):
        raise ValueError(
            "`noise` must be a noisy_sgd.mechanisms.Recipe, or None for independent Gaussian noise. "
            f"Received: noise={noise!r}"
        )
    if adaptive_clipping is None:
        return gaussian.IndependentNoise() if noise is None else noise
    if noise is not None:
        raise ValueError(
            f"`noise` must be None where `adaptive_clipping` learns the bound: it has its own noise. Received: {noise=}"
        )
    if clipping != "flat":
        raise ValueError(
            '`clipping` must be "flat" where `adaptive_clipping` learns the bound: others have no single threshold. '
            f"Received: clipping={clipping!r}"
        )
    return adaptive_clipping


def _check_noise(l2_norm_clip, noise_multiplier) -> tuple[float, float]:
    bound = clip_functions.check_norm_clip(l2_norm_clip)
    multiplier = checks.real("noise_multiplier", noise_multiplier, least=0)
    if multiplier and math.isinf(bound):
        raise ValueError(
            "`l2_norm_clip` must be finite where there is noise: no noise can hide an unbounded gradient. "
            f"Received: l2_norm_clip={l2_norm_clip}, noise_multiplier={noise_multiplier}"
        )
    return bound, multiplier
