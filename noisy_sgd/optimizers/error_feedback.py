"""DiceSGD: DP-SGD that feeds back what clipping takes away, so that clipping leaves no bias (Zhang et al. 2024).

With two bounds, C on each example's gradient and C' on the feedback (arXiv 2311.14632),

    v_t     = (1/B) sum_i clip_C(g_i) + clip_C'(e_t)          w_{t+1} = w_t - lr ( v_t + noise / B )
    e_{t+1} = e_t + (1/B) sum_i g_i - v_t                     e_0 = 0

The error e holds gradients without bound and without noise, and depends on all earlier batches. It is therefore hidden:
only the checkpoints of a recorded run hold it, which only their owner can read.

No epsilon is claimed. The paper's proof, by Renyi divergence, is specific to the algorithm and is not followed here. An
example that took part once may stay in e for ever and move every later v_t by 2 C', so that neither the steps it takes
part in nor amplification by sampling bounds its influence. All that is plain is the cost of one Gaussian mechanism of
sensitivity C / B + 2 C' on the mean in every step, which no usual noise covers. The paper compares DiceSGD with DP-SGD
at sqrt(1 + 2 C' / C) times the noise (`compared_noise_multiplier`).

    optimizer = noisy_sgd.DiceSGD(0.5, l2_norm_clip=0.1, noise_multiplier=1.1, batch_size=256, feedback_clip=0.1)
"""

import dataclasses
import math

import keras
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.gradients import clipping as clip_functions
from noisy_sgd.mechanisms import wrapped
from noisy_sgd.optimizers import privatized, read_only

_REASON = (
    "the error feedback carries gradients without noise from step to step, and no epsilon is known here for what that "
    "releases"
)


class _Hidden:
    """Holds variables outside everything that Keras or TensorFlow saves: neither tracks an object of this class."""

    __slots__ = ("variables",)

    def __init__(self):
        self.variables = []

    def __deepcopy__(self, memo):
        return _Hidden()


@keras.saving.register_keras_serializable(package="noisy_sgd")
class DiceSGD(privatized.PrivateUpdate, keras.optimizers.SGD):
    """SGD on the noised mean of clipped gradients and clipped error. With `feedback_clip=0.0` it is `noisy_sgd.DPSGD`.

    Otherwise nothing is guaranteed: the plan's epsilon is infinite, and `noisy_sgd.PrivacyBudget` refuses it. A saved
    model does not hold the error: a training that continues from it begins with an error of zero. On several replicas
    a step has a second all-reduce, of what clipping took away. An example whose gradient is not finite contributes
    nothing to the error either.

    Args:
        learning_rate: a float, a `keras.optimizers.schedules.LearningRateSchedule`, or a callable without arguments.
        l2_norm_clip: C, the bound on each example's gradient; positive. Infinity only without noise.
        noise_multiplier: sigma, the noise's standard deviation on the sum in units of C; >= 0.
        batch_size: B, the nominal size of a logical batch, and the divisor; a positive integer.
        feedback_clip: C', the bound on the error that is fed back into one mean gradient; at least 0. Infinity feeds
            back all of it.
        **kwargs: `seed`, `clipping`, `adaptive_clipping` and `noise` of `noisy_sgd.PrivateUpdate`; `momentum`,
            `nesterov`, `weight_decay` and others of `keras.optimizers.SGD`.

    Raises:
        ValueError: for an argument out of range, or one of Keras' that would break clipping or noise.
    """

    def __init__(
        self, learning_rate, l2_norm_clip, noise_multiplier, batch_size, *, feedback_clip, name="dice_sgd", **kwargs
    ):
        valid = checks.is_real(feedback_clip) and feedback_clip >= 0
        checks.require(valid, "feedback_clip", "must be a number of at least 0", feedback_clip)
        super().__init__(learning_rate, l2_norm_clip, noise_multiplier, batch_size, name=name, **kwargs)
        self._feedback_clip = float(feedback_clip)
        self._errors = _Hidden()
        if self._feedback_clip:
            added = f"with an error feedback of norm at most {self._feedback_clip:g} added to their mean"
            self._mechanism = wrapped.Unaccounted(self._mechanism, _REASON, added)

    @read_only.attribute
    def feedback_clip(self) -> float:
        """C', the bound on the error that is fed back."""
        return self._feedback_clip

    @property
    def hidden_variables(self) -> list[tf.Variable]:
        """The error e, one variable per weight; none where nothing is fed back."""
        return list(self._errors.variables)

    @property
    def clip(self) -> clip_functions.ClipFunction:
        """The clip function that a sum needs to be clipped with for `apply`, with the remainder."""
        return dataclasses.replace(super().clip, with_remainder=bool(self._feedback_clip))

    def build(self, variables):
        """Creates the optimizer's variables, and the error."""
        if self.built:
            return
        super().build(variables)
        if self._feedback_clip:
            self._errors.variables = [
                tf.Variable(
                    tf.zeros(weight.shape, weight.dtype),
                    trainable=False,
                    aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                    name="error",
                )
                for weight in variables
            ]

    def apply(self, grads, trainable_variables=None):
        """One step from a `ClippedSum` with its remainder, as `PrivateUpdate.apply`.

        Raises:
            TypeError: for bare gradients.
            ValueError: for a sum clipped to another bound, or without its remainder.
        """
        if not self._feedback_clip or not isinstance(grads, clip_functions.ClippedSum):
            super().apply(grads, trainable_variables)
            return
        if grads.remainder is None:
            raise ValueError(
                "`grads` must have a `remainder`, which the error feedback needs: pass with_remainder=True to "
                "`noisy_sgd.clipped_gradient_sum`. Received: grads.remainder=None"
            )
        variables = self._variables_of(trainable_variables)
        places = [self._errors.variables[self._get_variable_index(variable)] for variable in variables]
        errors = [tf.convert_to_tensor(place) for place in places]
        fed_back = _clipped(errors, self._feedback_clip)
        replica_context = tf.distribute.get_replica_context()
        remainder = grads.remainder
        if replica_context is not None:
            remainder = replica_context.all_reduce(tf.distribute.ReduceOp.SUM, remainder)
        # The sum over all replicas is divided by the batch size later, and must hold the feedback once.
        share = self.batch_size * self._draw().share
        values = [
            value + share * tf.cast(part, value.dtype) for value, part in zip(grads.values, fed_back, strict=True)
        ]
        super().apply(dataclasses.replace(grads, values=values), variables)
        for place, error, part, taken in zip(places, errors, fed_back, self._mean(remainder), strict=True):
            # e + mean g - v, where mean g - v is the mean remainder less the feedback.
            place.assign(error - part + tf.cast(taken, error.dtype))

    def load_own_variables(self, store):
        """Loads saved variables, which hold no error: it becomes zero."""
        super().load_own_variables(store)
        for place in self._errors.variables:
            place.assign(tf.zeros_like(place))

    def get_config(self):
        """The arguments that rebuild this optimizer, without a secret noise key."""
        return {**super().get_config(), "feedback_clip": self._feedback_clip}


def compared_noise_multiplier(noise_multiplier: float, l2_norm_clip: float, feedback_clip: float) -> float:
    """sigma sqrt(1 + 2 C' / C), the noise of DiceSGD that the paper's code compares with DP-SGD's sigma.

    Args:
        noise_multiplier: sigma, at least 0.
        l2_norm_clip: C, positive.
        feedback_clip: C', at least 0.

    Raises:
        ValueError: for an argument out of range.
    """
    sigma = checks.real("noise_multiplier", noise_multiplier, least=0)
    clip = checks.real("l2_norm_clip", l2_norm_clip, above=0)
    return sigma * math.sqrt(1 + 2 * checks.real("feedback_clip", feedback_clip, least=0) / clip)


def _clipped(tensors, bound: float):
    """The tensors, scaled together to an L2 norm of at most the bound."""
    square = tf.add_n([tf.reduce_sum(tf.square(tf.cast(tensor, tf.float32))) for tensor in tensors])
    factor = clip_functions.flat(bound)(tf.sqrt(square))
    return [tensor * tf.cast(factor, tensor.dtype) for tensor in tensors]
