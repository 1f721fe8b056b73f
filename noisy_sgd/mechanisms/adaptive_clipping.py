"""Adaptive clipping: the bound follows a quantile of the gradients' norms, learned from a noised count.

tensorflow-privacy's `QuantileAdaptiveClipSumQuery` (Andrew et al. 2021, arXiv 1905.03871) with noise that is a function
of (key, step). At bound C_k, of a batch of nominal size B,

    noised sum     sum_i clip_{C_k}(g_i) + z C_k Z_k                                   as in DP-SGD, eq. (2) times B
    fraction       b_k = 1/2 + (1/B) ( sum_i (1/2 if ||g_i|| <= C_k else -1/2) + s Y_k )
    next bound     C_{k+1} = C_k exp(-rate (clip(b_k, 0, 1) - quantile))

Z_k and Y_k are independent parts of one flat draw. One example moves the sum by C_k and the count by 1/2: one step
releases two Gaussians with noise multipliers z and 2s, which cost as much as one with (z^-2 + (2s)^-2)^(-1/2).

    optimizer = noisy_sgd.DPSGD(0.5, l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256,
                                adaptive_clipping=noisy_sgd.AdaptiveClipping(target_quantile=0.5))
    plan = noisy_sgd.privacy.Plan(event=optimizer.mechanism, sampling=scheme, num_steps=1_000, delta=1e-6)
"""

import dataclasses
from typing import Any, NamedTuple

import dp_accounting
import keras
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.mechanisms import gaussian, mechanism, tf_privacy

# One example is in the count as 1/2 or -1/2.
_COUNT_SENSITIVITY = 0.5
# In single precision a bound beyond these would in time become zero or infinite, and such small norms are inaccurate.
_LEAST_CLIP, _LARGEST_CLIP = 1e-12, 1e12

_TfPrivacyQuery = tf_privacy.quantile_adaptive_clip_sum_query.QuantileAdaptiveClipSumQuery


@keras.saving.register_keras_serializable(package="noisy_sgd")
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveClipping(mechanism.Recipe):
    """Adaptive clipping for `noisy_sgd.DPSGD(adaptive_clipping=...)`, whose `l2_norm_clip` is the first bound.

    Args:
        target_quantile: the fraction of gradients to leave unclipped, in [0, 1]. Defaults to 0.5, the median.
        learning_rate: the bound moves by a factor of at most exp(learning_rate) per step; at least 0. Defaults to 0.2.
        count_stddev: standard deviation of the noise on the count of unclipped gradients; positive where DPSGD has
            noise. It costs privacy: a noise multiplier of 2 * count_stddev beside DPSGD's own. Defaults to
            batch_size / 20, which costs almost nothing for batches of hundreds.

    Raises:
        ValueError: for an argument out of range.
    """

    target_quantile: float = 0.5
    learning_rate: float = 0.2
    count_stddev: float | None = None

    def __post_init__(self):
        within = checks.is_real(self.target_quantile) and 0 <= self.target_quantile <= 1
        checks.require(within, "target_quantile", "must be in [0, 1]", self.target_quantile)
        checks.real("learning_rate", self.learning_rate, least=0)
        if self.count_stddev is not None:
            checks.real("count_stddev", self.count_stddev, least=0)

    def make(
        self, l2_norm_clip: float, noise_multiplier: float, batch_size: int, key
    ) -> "QuantileAdaptiveClipSumQuery":
        """The mechanism of a run.

        Args:
            l2_norm_clip: the bound of the first step, positive and finite.
            noise_multiplier: z, the noise's standard deviation on the sum in units of the current bound.
            batch_size: B, the nominal size of a batch.
            key: [2] int64, the noise key.

        Raises:
            ValueError: for a bound out of range, or noise on the sum but none on the count.
        """
        count_stddev = batch_size / 20 if self.count_stddev is None else self.count_stddev
        if not _LEAST_CLIP <= l2_norm_clip <= _LARGEST_CLIP:
            raise ValueError(
                f"`l2_norm_clip` must be in [{_LEAST_CLIP}, {_LARGEST_CLIP}] for the bound to be learned from there. "
                f"Received: l2_norm_clip={l2_norm_clip}"
            )
        if noise_multiplier and not count_stddev:
            raise ValueError(
                "`count_stddev` must be positive where the sum has noise: a count without noise is not private. "
                f"Received: count_stddev={self.count_stddev!r}, noise_multiplier={noise_multiplier}"
            )
        return QuantileAdaptiveClipSumQuery(
            l2_norm_clip, noise_multiplier, self.target_quantile, self.learning_rate, count_stddev, batch_size, key
        )

    def get_config(self) -> dict[str, float | None]:
        """The arguments that rebuild this object."""
        return dataclasses.asdict(self)


def count_unclipped(norms: tf.Tensor, l2_norm_clip, present=None) -> tf.Tensor:
    """The sum of 1/2 for every norm within the bound and -1/2 for every other one, float32; 0 for padding.

    Args:
        norms: [B]; a norm that is not finite is not within the bound.
        l2_norm_clip: C, a number or a scalar.
        present: [B], False for padding. Defaults to no padding.
    """
    halves = tf.where(norms <= tf.cast(l2_norm_clip, norms.dtype), 0.5, -0.5)
    return tf.reduce_sum(halves if present is None else tf.where(present, halves, 0.0))


class GlobalState(NamedTuple):
    """The current bound, and what a draw depends on (see `mechanism.Draw`)."""

    l2_norm_clip: Any
    step: Any = 0
    share: float = 1.0
    generation: Any = 0


class QuantileAdaptiveClipSumQuery(mechanism.Mechanism, _TfPrivacyQuery):
    """tensorflow-privacy's query with stateless noise; its sample states are (sum_state, quantile_estimator_state).

    Args:
        initial_l2_norm_clip: the bound of the first step.
        noise_multiplier: z.
        target_unclipped_quantile: the fraction of records to leave unclipped.
        learning_rate: of the bound's logarithm.
        clipped_count_stddev: s.
        expected_num_records: B.
        key: [2] int64, the noise key.
    """

    def __init__(
        self,
        initial_l2_norm_clip: float,
        noise_multiplier: float,
        target_unclipped_quantile: float,
        learning_rate: float,
        clipped_count_stddev: float,
        expected_num_records: int,
        key,
    ):
        super().__init__(
            initial_l2_norm_clip,
            noise_multiplier,
            target_unclipped_quantile,
            learning_rate,
            clipped_count_stddev,
            expected_num_records,
        )
        self._initial_l2_norm_clip = initial_l2_norm_clip
        self._target_quantile = target_unclipped_quantile
        self._learning_rate = learning_rate
        self._count_stddev = clipped_count_stddev
        self._num_records = expected_num_records
        self._key = key

    def initial_state(self) -> mechanism.State:
        """The bound of the first step."""
        return {"l2_norm_clip": self._initial_l2_norm_clip}

    def clip_bound(self, state: mechanism.State) -> tf.Tensor:
        """The bound learned so far, at least the smallest allowed one."""
        return tf.convert_to_tensor(state["l2_norm_clip"])

    def stddev(self, state: mechanism.State) -> tf.Tensor:
        """The noise is in proportion to the current bound."""
        return self._noise_multiplier * self.clip_bound(state)

    def statistic(self, norms: tf.Tensor, present: tf.Tensor | None, state: mechanism.State) -> tf.Tensor:
        """The sum of 1/2 for every norm within the bound and -1/2 for every other one; 0 for padding."""
        return count_unclipped(norms, self.clip_bound(state), present)

    def add_noise(self, sums, statistic, state: mechanism.State, draw: mechanism.Draw):
        """This replica's part of the sums and of the count, with its share of the noise: parts of one flat draw."""
        noisy = sums if self._noise_multiplier else []
        *normals, normal = gaussian.draw("isotropic", [*noisy, statistic], self._key, draw)
        if self._noise_multiplier:
            stddev = self.stddev(state)
            sums = [
                value + tf.cast(stddev, value.dtype) * draw.share * z for value, z in zip(sums, normals, strict=True)
            ]
        return sums, statistic + self._count_stddev * draw.share * normal

    def next_state(self, statistic: tf.Tensor, state: mechanism.State) -> mechanism.State:
        """The next bound, from this step's bound and the noised count."""
        fraction = tf.clip_by_value(statistic / self._num_records + _COUNT_SENSITIVITY, 0.0, 1.0)
        factor = tf.exp(-self._learning_rate * (fraction - self._target_quantile))
        return {"l2_norm_clip": tf.clip_by_value(state["l2_norm_clip"] * factor, _LEAST_CLIP, _LARGEST_CLIP)}

    @property
    def event(self) -> dp_accounting.DpEvent:
        """What one step costs: the noise on the sum and on the count of one batch; non-private without noise."""
        if not self._noise_multiplier or not self._count_stddev:
            return dp_accounting.NonPrivateDpEvent()
        multipliers = (self._noise_multiplier, self._count_stddev / _COUNT_SENSITIVITY)
        return dp_accounting.ComposedDpEvent([dp_accounting.GaussianDpEvent(each) for each in multipliers])

    @property
    def not_private(self) -> str | None:
        """Why nothing is guaranteed, or None."""
        if self._noise_multiplier and not self._count_stddev:
            return "no noise is added to the count that the clip norm is learned from (epsilon = infinity)"
        return super().not_private

    def facts(self) -> dict[str, float]:
        """The numbers of a privacy statement; `count_noise_multiplier` is the count's, whose sensitivity is 1/2."""
        return {
            "l2_norm_clip": self._initial_l2_norm_clip,
            "noise_multiplier": self._noise_multiplier,
            "count_noise_multiplier": self._count_stddev / _COUNT_SENSITIVITY if self._noise_multiplier else 0.0,
        }

    def in_words(self, clipped: str) -> str:
        """What happens to the gradients, as a clause of a privacy statement."""
        facts = self.facts()
        return (
            f"clipped to a norm that is {facts['l2_norm_clip']:g} at first and then learned from a count of the "
            f"gradients within it, with Gaussian noise of noise multiplier {facts['count_noise_multiplier']:g}, which "
            f"is accounted for as well, summed, Gaussian noise of {facts['noise_multiplier']:g} times that norm (the "
            "noise multiplier)"
        )

    def initial_global_state(self) -> GlobalState:
        """tensorflow-privacy's state of step 0."""
        return GlobalState(l2_norm_clip=tf.constant(self._initial_l2_norm_clip, tf.float32))

    def derive_sample_params(self, global_state: GlobalState):
        """The bounds by which tensorflow-privacy's `preprocess_record` clips and counts."""
        state, clip = super().initial_global_state(), global_state.l2_norm_clip
        state = state._replace(
            sum_state=state.sum_state._replace(l2_norm_clip=clip),
            quantile_estimator_state=state.quantile_estimator_state._replace(current_estimate=clip),
        )
        return super().derive_sample_params(state)

    def get_noised_result(self, sample_state, global_state: GlobalState):
        """The sum with this step's noise, the next step's state, and the event to account; on one replica."""
        state = {"l2_norm_clip": global_state.l2_norm_clip}
        drawn = mechanism.Draw(global_state.step, global_state.share, global_state.generation)
        sums, count = self.add_noise(
            tf.nest.flatten(sample_state.sum_state), sample_state.quantile_estimator_state, state, drawn
        )
        following = global_state._replace(**self.next_state(count, state), step=global_state.step + 1)
        return tf.nest.pack_sequence_as(sample_state.sum_state, sums), following, self.event
