"""The DPQuery classes that the mechanisms build on, for Pythons on which tensorflow-privacy cannot be installed.

A query turns records (nested structures of tensors) into a noised sum and says what that costs. One application is

    parameters = query.derive_sample_params(state)
    sample = query.initial_sample_state(template)
    for record in records:
        sample = query.accumulate_record(parameters, sample, record)
    result, state, event = query.get_noised_result(sample, state)

Names, argument orders, states and results are those of tensorflow-privacy 0.9.0. The test beside it builds the
mechanisms over both and compares them.
"""

import abc
import collections
import types
from typing import Any, NamedTuple

import dp_accounting
import tensorflow as tf

# A record counts as 1/2 below the estimate and as -1/2 above it: removing one moves the count by 1/2.
_COUNT_SENSITIVITY = 0.5


class DPQuery(abc.ABC):
    """A mechanism as a set of pure functions of states."""

    def initial_global_state(self):
        """The state that persists between samples; empty by default."""
        return ()

    def derive_sample_params(self, global_state):
        """The parameters of `preprocess_record`, from the global state; empty by default."""
        return ()

    @abc.abstractmethod
    def initial_sample_state(self, template=None):
        """The state of a sample without records, for records that look like `template`."""

    def preprocess_record(self, params, record):
        """A record with bounded sensitivity; by default the record itself."""
        return record

    @abc.abstractmethod
    def accumulate_preprocessed_record(self, sample_state, preprocessed_record):
        """The sample state with one more preprocessed record."""

    def accumulate_record(self, params, sample_state, record):
        """The sample state with one more record."""
        return self.accumulate_preprocessed_record(sample_state, self.preprocess_record(params, record))

    @abc.abstractmethod
    def merge_sample_states(self, sample_state_1, sample_state_2):
        """The sample state of the records of both states."""

    @abc.abstractmethod
    def get_noised_result(self, sample_state, global_state):
        """The noised result, the next global state, and the DpEvent that took place."""

    def derive_metrics(self, global_state):
        """Named values of the global state that may be published; none by default."""
        return collections.OrderedDict()


class SumAggregationDPQuery(DPQuery):
    """A query whose sample state is the sum of its preprocessed records."""

    def initial_sample_state(self, template=None):
        """Zeros of the template's shapes and dtypes; its leaves are values or `tf.TensorSpec`s."""
        return tf.nest.map_structure(_zeros_like, template)

    def accumulate_preprocessed_record(self, sample_state, preprocessed_record):
        """The sum of both; a part of the record that is None adds nothing."""
        return tf.nest.map_structure(
            lambda total, part: total if part is None else tf.add(total, part), sample_state, preprocessed_record
        )

    def merge_sample_states(self, sample_state_1, sample_state_2):
        """The sum of both."""
        return tf.nest.map_structure(tf.add, sample_state_1, sample_state_2)


class GaussianSumState(NamedTuple):
    """Two float32 scalars."""

    l2_norm_clip: Any
    stddev: Any


class GaussianSumQuery(SumAggregationDPQuery):
    """The sum of records clipped to a global norm, plus N(0, stddev^2) on every coordinate.

    Args:
        l2_norm_clip: C, the largest norm of a record over all its parts.
        stddev: standard deviation of the noise.
    """

    def __init__(self, l2_norm_clip, stddev):
        self._l2_norm_clip = l2_norm_clip
        self._stddev = stddev

    def make_global_state(self, l2_norm_clip, stddev):
        """The global state of a clip norm and a standard deviation."""
        return GaussianSumState(tf.cast(l2_norm_clip, tf.float32), tf.cast(stddev, tf.float32))

    def initial_global_state(self):
        """The global state of the constructor's arguments."""
        return self.make_global_state(self._l2_norm_clip, self._stddev)

    def derive_sample_params(self, global_state):
        """The clip norm."""
        return global_state.l2_norm_clip

    def preprocess_record_impl(self, params, record):
        """The clipped record, and its norm before clipping."""
        clipped, norm = tf.clip_by_global_norm(tf.nest.flatten(record), params)
        return tf.nest.pack_sequence_as(record, clipped), norm

    def preprocess_record(self, params, record):
        """The clipped record."""
        return self.preprocess_record_impl(params, record)[0]

    def get_noised_result(self, sample_state, global_state):
        """The sum with noise of TensorFlow's global generator, the same state, and the event."""
        stddev = global_state.stddev
        result = tf.nest.map_structure(
            lambda total: total + tf.cast(tf.random.normal(tf.shape(total), stddev=stddev), total.dtype), sample_state
        )
        return result, global_state, dp_accounting.GaussianDpEvent(stddev / global_state.l2_norm_clip)


class FractionState(NamedTuple):
    """The noised count's own state, and the number of records that it is divided by."""

    numerator_state: GaussianSumState
    denominator: Any


class QuantileEstimatorState(NamedTuple):
    """The estimate, the target quantile and the learning rate; float32 scalars."""

    current_estimate: Any
    target_quantile: Any
    learning_rate: Any
    below_estimate_state: FractionState


class QuantileEstimatorParams(NamedTuple):
    """The threshold for a norm, and the clip norm of the count."""

    current_estimate: Any
    below_estimate_params: Any


class AdaptiveClipState(NamedTuple):
    """The global state of `QuantileAdaptiveClipSumQuery`."""

    noise_multiplier: Any
    sum_state: GaussianSumState
    quantile_estimator_state: QuantileEstimatorState


class AdaptiveClipParams(NamedTuple):
    """The parameters of a sample of `QuantileAdaptiveClipSumQuery`."""

    sum_params: Any
    quantile_estimator_params: QuantileEstimatorParams


class AdaptiveClipSampleState(NamedTuple):
    """The sum of clipped records, and the sum of 1/2 for every unclipped and -1/2 for every other record."""

    sum_state: Any
    quantile_estimator_state: Any


class QuantileAdaptiveClipSumQuery(SumAggregationDPQuery):
    """The noised sum of clipped records, whose clip norm follows a quantile of their norms (arXiv 1905.03871).

    Args:
        initial_l2_norm_clip: the clip norm of the first sample.
        noise_multiplier: standard deviation of the noise on the sum, in current clip norms.
        target_unclipped_quantile: the fraction of records to leave unclipped, in [0, 1].
        learning_rate: of the clip norm's logarithm; at least 0.
        clipped_count_stddev: standard deviation of the noise on the count.
        expected_num_records: the number that the count is divided by.

    Raises:
        ValueError: for a quantile or a learning rate out of range.
    """

    _SampleState = AdaptiveClipSampleState

    def __init__(
        self,
        initial_l2_norm_clip,
        noise_multiplier,
        target_unclipped_quantile,
        learning_rate,
        clipped_count_stddev,
        expected_num_records,
    ):
        if not 0 <= target_unclipped_quantile <= 1:
            raise ValueError(
                "`target_unclipped_quantile` must be in [0, 1]. "
                f"Received: target_unclipped_quantile={target_unclipped_quantile}"
            )
        if not learning_rate >= 0:
            raise ValueError(f"`learning_rate` must be at least 0. Received: learning_rate={learning_rate}")
        self._noise_multiplier = noise_multiplier
        self._sum_query = GaussianSumQuery(initial_l2_norm_clip, noise_multiplier * initial_l2_norm_clip)
        self._count_query = GaussianSumQuery(_COUNT_SENSITIVITY, clipped_count_stddev)
        self._estimator = (initial_l2_norm_clip, target_unclipped_quantile, learning_rate)
        self._expected_num_records = expected_num_records

    def initial_global_state(self):
        """The global state of the constructor's arguments."""
        estimate, quantile, learning_rate = (tf.cast(each, tf.float32) for each in self._estimator)
        fraction = FractionState(
            self._count_query.initial_global_state(), tf.cast(self._expected_num_records, tf.float32)
        )
        return AdaptiveClipState(
            tf.cast(self._noise_multiplier, tf.float32),
            self._sum_query.initial_global_state(),
            QuantileEstimatorState(estimate, quantile, learning_rate, fraction),
        )

    def derive_sample_params(self, global_state):
        """The clip norm, the threshold for norms, and the clip norm of the count."""
        estimator = global_state.quantile_estimator_state
        count_params = self._count_query.derive_sample_params(estimator.below_estimate_state.numerator_state)
        return AdaptiveClipParams(
            self._sum_query.derive_sample_params(global_state.sum_state),
            QuantileEstimatorParams(estimator.current_estimate, count_params),
        )

    def initial_sample_state(self, template=None):
        """Zeros for the sum and for the count."""
        return self._SampleState(
            self._sum_query.initial_sample_state(template), self._count_query.initial_sample_state(0.0)
        )

    def preprocess_record(self, params, record):
        """The clipped record, and 1/2 if its norm was within the estimate or -1/2 if not."""
        clipped, norm = self._sum_query.preprocess_record_impl(params.sum_params, record)
        estimator = params.quantile_estimator_params
        unclipped = tf.cast(norm <= estimator.current_estimate, tf.float32) - 0.5
        return self._SampleState(
            clipped, self._count_query.preprocess_record(estimator.below_estimate_params, unclipped)
        )

    def get_noised_result(self, sample_state, global_state):
        """The sum with noise, the state with the next clip norm, and the events of the sum and of the count."""
        estimator = global_state.quantile_estimator_state
        count_state, num_records = estimator.below_estimate_state
        noised_sum, _, sum_event = self._sum_query.get_noised_result(sample_state.sum_state, global_state.sum_state)
        noised_count, _, count_event = self._count_query.get_noised_result(
            sample_state.quantile_estimator_state, count_state
        )
        fraction = tf.clip_by_value(noised_count / num_records + 0.5, 0.0, 1.0)
        factor = tf.exp(-estimator.learning_rate * (fraction - estimator.target_quantile))
        clip = estimator.current_estimate * factor
        next_state = global_state._replace(
            sum_state=self._sum_query.make_global_state(clip, clip * global_state.noise_multiplier),
            quantile_estimator_state=estimator._replace(current_estimate=clip),
        )
        return noised_sum, next_state, dp_accounting.ComposedDpEvent(events=[sum_event, count_event])

    def derive_metrics(self, global_state):
        """The clip norm."""
        return collections.OrderedDict(clip=global_state.sum_state.l2_norm_clip)


def _zeros_like(leaf):
    if not isinstance(leaf, tf.TensorSpec):
        leaf = tf.convert_to_tensor(leaf)
    return tf.zeros(leaf.shape, leaf.dtype)


# tensorflow-privacy's modules, by their names.
dp_query = types.SimpleNamespace(DPQuery=DPQuery, SumAggregationDPQuery=SumAggregationDPQuery)
gaussian_query = types.SimpleNamespace(GaussianSumQuery=GaussianSumQuery)
quantile_adaptive_clip_sum_query = types.SimpleNamespace(QuantileAdaptiveClipSumQuery=QuantileAdaptiveClipSumQuery)
