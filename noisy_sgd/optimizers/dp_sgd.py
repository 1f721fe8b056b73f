"""DP-SGD: SGD on a sum of clipped per-example gradients, with Gaussian noise (eq. (2) of the paper; Abadi et al. 2016).

w_{k+1} = w_k - lr * (1/B) ( sum_i clip_C(grad loss_i(w_k)) + N(0, sigma^2 C^2 I) )

optimizer = noisy_sgd.DPSGD(learning_rate=4.0, l2_norm_clip=1.0, noise_multiplier=3.0, batch_size=4096)
model = noisy_sgd.PrivateModel(inputs, outputs)
model.compile(optimizer, loss, microbatch_size=64)
"""

import math
import numbers

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd.gradients import clipping as clip_functions
from noisy_sgd.mechanisms import gaussian, quantile_clipping
from noisy_sgd.optimizers import noisy_sgd, read_only


@keras.saving.register_keras_serializable(package="noisy_sgd")
class DPSGD(noisy_sgd.NoisySGD):
    """DP-SGD (eq. (2)): takes a sum of clipped per-example gradients, adds noise, divides by its own batch size.

    The noise on the mean gradient has standard deviation noise_multiplier * l2_norm_clip / batch_size. Clip, noise and
    batch size are read-only, so that nothing changes behind the accountant. It refuses bare gradients: train a
    `noisy_sgd.PrivateModel`, or pass the `ClippedSum` of `noisy_sgd.clipped_gradient_sum` to `apply`.

    No two releases share their noise: it is a function of (key, generation, step), and a step that comes again, because
    a checkpoint was restored or `iterations` assigned, opens a new generation, which no restoring brings back. Loading
    saved variables draws another key. What remains is a process that is copied as a whole, with its memory (`fork`, a
    snapshot of a virtual machine): both copies hold the key and the count, so only one of them may go on.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
        l2_norm_clip: C, the bound on each example's gradient; positive. Infinity only without noise.
        noise_multiplier: sigma, the noise's standard deviation in units of C; >= 0. Without noise nothing is private.
        batch_size: B, the nominal size of a logical batch, and the divisor whatever the batch really holds; a positive
            integer.
        seed: None draws a 128-bit noise key from the operating system. It is kept out of `get_config`, saved models and
            logs: who has it can subtract the noise. An integer is for tests: the noise can be recomputed, and nothing
                is private. Defaults to None.
        momentum: float in [0, 1]. Defaults to 0.0.
        nesterov: whether to use Nesterov momentum. Defaults to False.
        clipping: how norms become clip factors: "flat", "automatic", "normalized", "per_layer", or a list of bounds,
            one a layer (see `noisy_sgd.clipped_gradient_sum`); all have the sensitivity C. Defaults to "flat".
        query: a `noisy_sgd.QuantileClipping` for adaptive clipping (with clipping="flat"): the bound starts at
            `l2_norm_clip` and is learned; `current_l2_norm_clip` holds now. Defaults to None, one bound for all steps.
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
        query=None,
        weight_decay=None,
        name="dp_sgd",
        **kwargs,
    ):
        bound, multiplier = _check_noise(l2_norm_clip, noise_multiplier)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"`batch_size` must be a positive integer. Received: batch_size={batch_size!r}")
        clipping = clip_functions.bounds_as_tuple(clipping)
        clip = clip_functions.clip_function(clipping, bound)
        _check_query(query, clipping)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer)):
            raise ValueError(f"`seed` must be an integer or None. Received: seed={type(seed).__name__}")
        self._initialize(learning_rate, seed, momentum, nesterov, weight_decay, name, kwargs)
        self._l2_norm_clip = bound
        self._noise_multiplier = multiplier
        self._batch_size = int(batch_size)
        self._clipping = clipping
        self._clip = clip
        # Infinity times 0 is no noise.
        self._stddev = multiplier * bound if multiplier else 0.0
        self._learning = query
        self._learned_clip = None
        if query is None:
            self._query = gaussian.GaussianSumQuery(bound, self._stddev, self._noise_key.variable)
        else:
            self._query = query.make(bound, multiplier, self._batch_size, self._noise_key.variable)

    def build(self, variables):
        """Creates the momentum slots, and the variable of a bound that is learned."""
        if self.built:
            return
        keras.optimizers.SGD.build(self, variables)
        if self._learning is not None:
            self._learned_clip = self.add_variable(
                shape=(),
                initializer=keras.initializers.Constant(self._l2_norm_clip),
                dtype="float32",
                aggregation="only_first_replica",
                name="l2_norm_clip",
            )

    @read_only.attribute
    def l2_norm_clip(self) -> float:
        """C, the bound on each example's gradient; where a `query` learns it, the bound of the first step."""
        return self._l2_norm_clip

    @property
    def current_l2_norm_clip(self) -> float | tf.Tensor:
        """The bound of the step to come: `l2_norm_clip`, or a scalar tensor where a `query` learns it."""
        return self._l2_norm_clip if self._learned_clip is None else tf.convert_to_tensor(self._learned_clip)

    @read_only.attribute
    def query(self) -> quantile_clipping.QuantileClipping | None:
        """How the bound is learned, or None."""
        return self._learning

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
        # What the query learns is never less than its least bound.
        return self._clip if self._learned_clip is None else clip_functions.flat_at(self.current_l2_norm_clip)

    @read_only.attribute
    def noise_std(self) -> float | tf.Tensor:
        """Standard deviation of the noise on the mean gradient: noise_multiplier * the current bound / batch_size."""
        if self._learned_clip is not None:
            return self._noise_multiplier * self.current_l2_norm_clip / self._batch_size
        return self._stddev / self._batch_size

    @property
    def event(self):
        """The `dp_accounting.DpEvent` of one step; `noisy_sgd.privacy.accounting.event_of_steps` makes a run of it."""
        return self._query.event

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
                "`DPSGD` needs gradients clipped per example, and a plain training step has only their mean: build the "
                "model as `noisy_sgd.PrivateModel(inputs, outputs)`, or pass the result of "
                "`noisy_sgd.clipped_gradient_sum`. "
                f"Received: grads of type {type(grads).__name__}"
            )
        variables = self._variables_of(trainable_variables)
        values, checks = grads.values, self._checks_of_bound(grads.l2_sensitivity)
        if checks:
            with tf.control_dependencies(checks):
                values = [tf.identity(value) for value in values]
        if self._learning is None:
            keras.optimizers.SGD.apply(self, self.noised(values, variables), variables)
            return
        statistic = self.statistic(grads.norms, grads.present) if grads.statistic is None else grads.statistic
        state = self._state_of_draw(release=True)
        noised = self._query.with_noise(self._query.sample_state(values, statistic), state)
        count = noised.quantile_estimator_state
        replica_context = tf.distribute.get_replica_context()
        if replica_context is not None:
            count = replica_context.all_reduce(tf.distribute.ReduceOp.SUM, count)
        keras.optimizers.SGD.apply(self, self._mean(noised.sum_state), variables)
        self._learned_clip.assign(self._query.next_global_state(count, state).l2_norm_clip)

    @property
    def has_statistic(self) -> bool:
        """Whether `apply` needs the sum of a statistic of the norms."""
        return self._learning is not None

    def statistic(self, norms, present=None) -> tf.Tensor | None:
        """The sum of the statistic of these examples, or None where the mechanism asks for none.

        Args:
            norms: [B], before clipping.
            present: [B], False for padding. Defaults to no padding.
        """
        if self._learning is None:
            return None
        return quantile_clipping.count_unclipped(norms, self.current_l2_norm_clip, present)

    def _state_of_draw(self, *, release):
        state = self._global_state()
        state = state._replace(generation=self._noise_key.generation(state.step, release=release))
        if self._learning is None:
            return state
        return quantile_clipping.GlobalState(l2_norm_clip=self.current_l2_norm_clip, **state._asdict())

    def _checks_of_bound(self, l2_sensitivity):
        """Refuses another bound: now, or by the operations returned where the bounds are known only to a graph."""
        current = self.current_l2_norm_clip
        if any(tf.is_tensor(bound) and not hasattr(bound, "numpy") for bound in (l2_sensitivity, current)):
            return [tf.debugging.assert_near(l2_sensitivity, current, rtol=1e-6, atol=0.0, message=_ANOTHER_BOUND)]
        if not math.isclose(l2_sensitivity, current, rel_tol=1e-9 if self._learning is None else 1e-6):
            name = "l2_norm_clip" if self._learning is None else "current_l2_norm_clip"
            raise ValueError(
                f"{_ANOTHER_BOUND}: {name}={float(current)}. Received: l2_sensitivity={float(l2_sensitivity)}"
            )
        return []

    def noised(self, grads, weights, *, release=True):
        """This replica's part of the noised mean gradient, from its part of the clipped sum.

        Every call counts as a release, as `apply` does: its noise is used for nothing else, so that a second call at
        the same step, or at one that was released before, gets other noise. It takes no step; `apply` does.

        Args:
            grads: this replica's part of the clipped sum, one tensor per weight.
            weights: not used.
            release: False shows the noise that the next release will add, and must not be released beside it. Defaults
                to True.

        Returns:
            One tensor per weight.
        """
        state = self._state_of_draw(release=release)
        if self._learning is None:
            sums = self._query.get_noised_result(grads, state)[0]
        else:
            sums = self._query.with_noise(self._query.sample_state(grads, tf.zeros([])), state).sum_state
        return self._mean(sums)

    def _mean(self, sums):
        divisors = {dtype: tf.cast(self._batch_size, dtype) for dtype in {value.dtype for value in sums}}
        return [value / divisors[value.dtype] for value in sums]

    def rekey(self, seed: int | bytes | None) -> None:
        """Takes other noise, for another run of the same compiled step.

        Under a strategy of several workers all of them call it, and take the chief's. The same integer or bytes again
        replay their noise from the current step on: only for the same data.

        Args:
            seed: an integer; bytes of `keys.secret`, which then are in no configuration and no saved model, as if the
                optimizer had been made with seed=None; or None for a new secret from the operating system.

        Raises:
            ValueError: for anything else, or a secret of less than 16 bytes.
        """
        self._take_noise_of(seed)

    def load_own_variables(self, store):
        """Takes saved variables; a secret noise key becomes another, lest steps taken again meet their noise again."""
        super().load_own_variables(store)
        if self.seed is None:
            self.rekey(None)

    def get_config(self):
        """The arguments that rebuild this optimizer, without a secret noise key."""
        config = keras.optimizers.SGD.get_config(self)
        config = {name: value for name, value in config.items() if name not in noisy_sgd.REFUSED}
        config.update(
            l2_norm_clip=self.l2_norm_clip,
            noise_multiplier=self.noise_multiplier,
            batch_size=self.batch_size,
            seed=self.seed,
            clipping=self.clipping if isinstance(self.clipping, str) else list(self.clipping),
            query=None if self.query is None else keras.saving.serialize_keras_object(self.query),
        )
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The optimizer of a `get_config`."""
        config = {**config, "query": keras.saving.deserialize_keras_object(config.get("query"))}
        return super().from_config(config, custom_objects=custom_objects)


_ANOTHER_BOUND = "`grads` must be clipped to the optimizer's own bound, since the noise is scaled to it"


def _check_query(query, clipping):
    if query is not None and not isinstance(query, quantile_clipping.QuantileClipping):
        raise ValueError(f"`query` must be a noisy_sgd.QuantileClipping or None. Received: query={query!r}")
    if query is not None and clipping != "flat":
        raise ValueError(
            '`clipping` must be "flat" where a `query` learns the bound: the others have no one threshold. '
            f"Received: clipping={clipping!r}"
        )


def _check_noise(l2_norm_clip, noise_multiplier) -> tuple[float, float]:
    bound = clip_functions.check_norm_clip(l2_norm_clip)
    is_number = isinstance(noise_multiplier, numbers.Real) and not isinstance(noise_multiplier, bool)
    if not is_number or not 0 <= noise_multiplier < math.inf:
        raise ValueError(
            f"`noise_multiplier` must be finite and at least 0. Received: noise_multiplier={noise_multiplier!r}"
        )
    multiplier = float(noise_multiplier)
    if multiplier and math.isinf(bound):
        raise ValueError(
            "`l2_norm_clip` must be finite where there is noise: no noise hides an unbounded gradient. "
            f"Received: l2_norm_clip={l2_norm_clip}, noise_multiplier={noise_multiplier}"
        )
    return bound, multiplier
