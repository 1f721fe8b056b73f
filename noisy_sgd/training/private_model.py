"""The training step of all models: `accumulate` a microbatch, `finish` the logical batch.

    model = noisy_sgd.PrivateModel(inputs, outputs)
    model.compile(noisy_sgd.DPSGD(0.5, l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256),
                  loss="sparse_categorical_crossentropy", metrics=["accuracy"], microbatch_size=32)
    model.fit(images, labels, epochs=3)

`fit` slices each batch into microbatches (`train_step`); `noisy_sgd.training.loop` streams microbatches through the
same two methods.
"""

import inspect

import keras
import tensorflow as tf

from noisy_sgd import keras_internals
from noisy_sgd.gradients import arguments, clipped_sum, clipping, trials
from noisy_sgd.optimizers import foreign_arguments, noised, privatized
from noisy_sgd.training import (
    batch_shapes,
    budget,
    existing_model,
    fitting,
    microbatch_gradients,
    microbatches,
    overrides,
    per_example_loss,
    per_output,
    prediction_masks,
    replica_parts,
    running_sum,
    saved_losses,
    target_shapes,
    training_arguments,
    weight_penalties,
)


@keras.saving.register_keras_serializable(package="noisy_sgd")
class PrivateModel(keras.Model):
    """A functional Keras model that trains on per-example gradients: `PrivateModel(inputs, outputs)`.

    With a private optimizer every example's gradient is clipped before it is summed; with `noisy_sgd.NoisySGD`, or any
    Keras optimizer, the ordinary gradient is summed in the same microbatches.

    Args:
        inputs: as of a functional `keras.Model`, a nest of `keras.Input`.
        outputs: what layers make of them, a nest; `network(inputs)` for a model with a `call` of its own.
        name, trainable: as in Keras.

    Raises:
        ValueError: for a model or layers in place of inputs and outputs; see `from_model`.
    """

    # Cloning and loading take a class for a functional model by these two in every Keras, by the names from 3.13 on.
    def __init__(self, *args, **kwargs):
        existing_model.check_tensors(*args, **kwargs)
        super().__init__(*args, **kwargs)

    @classmethod
    def from_model(cls, model: keras.Model) -> "PrivateModel":
        """A private model that shares the layers and weights of a functional or Sequential model.

        Training one model trains the other. The private model must be compiled itself.

        Args:
            model: a functional or Sequential `keras.Model` that knows the shape of its inputs.

        Raises:
            ValueError: for another kind of model, naming the way to a `PrivateModel`.
        """
        return cls(*existing_model.inputs_and_outputs(model), name=model.name)

    def compile(
        self,
        optimizer,
        loss=None,
        *,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile=False,
        microbatch_size=None,
        batch_size=None,
        engine="auto",
        augmentation_multiplicity=1,
        **foreign,
    ):
        """Configures the model for training.

        Args:
            optimizer: a private one, such as `noisy_sgd.DPSGD`, `noisy_sgd.NoisySGD`, or a Keras optimizer.
            loss: as in Keras; it is evaluated per example, so that a reduction is always the mean over the examples.
            loss_weights: as in Keras.
            metrics: as in Keras.
            weighted_metrics: as in Keras.
            run_eagerly, steps_per_execution: as in Keras.
            jit_compile: whether XLA compiles the gradients of a microbatch. Defaults to False.
            microbatch_size: examples on each replica at once; it only bounds the memory. Defaults to the whole batch.
            batch_size: the divisor of the summed gradient. Defaults to that of a private optimizer, else to the number
                of examples in the batch.
            engine: "auto", "book_keeping" or "vectorized"; see `noisy_sgd.clipped_gradient_sum`. Defaults to "auto".
            augmentation_multiplicity: K, the number of views of each training example. Above 1, training takes inputs
                [B, K, ...] and targets [B, ...]. An example's gradient, loss and predictions are the mean over its
                views; the mean gradient is clipped once. Evaluation takes inputs [B, ...]. Defaults to 1.
            **foreign: refused; for arguments of other libraries the error names ours.

        Raises:
            ValueError: for an argument out of range, a model that mixes examples (see `noisy_sgd.gradients.trials`), or
                an overridden Keras method that clipping needs (see `overrides`).
        """
        training_arguments.check_names("compile", foreign)
        optimizer = keras.optimizers.get(optimizer)
        training_arguments.check_size("microbatch_size", microbatch_size)
        batch_size = training_arguments.divisor(optimizer, batch_size)
        training_arguments.check_augmentation_multiplicity(augmentation_multiplicity)
        overrides.check(self, PrivateModel, optimizer)
        arguments.check_precision(self)
        clipped_sum.engine_named(engine)
        matched_loss = per_example_loss.from_keras(loss, loss_weights, self.output_names)
        matched_loss.matched(None, self.output)
        clipped_sum.check_model(self, engine, clipped=privatized.needs_clipped_sum(optimizer))
        super().compile(
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=False,
            auto_scale_loss=False,
        )
        self._microbatch_size = microbatch_size
        self._batch_size = batch_size
        self._engine = engine
        self._augmentation_multiplicity = augmentation_multiplicity
        self._any_size, self._secret = False, None
        self.sampling = None
        self._jit_gradients = jit_compile
        self._matched_loss, self._loss_fn = matched_loss, trials.checked_loss(matched_loss)
        self._target_shapes = target_shapes.TargetShapes()
        self._running_sum = None
        training_arguments.remark_on_optimizer(self)
        self.prepare()

    def prepare(self, noise_secret: bytes | None = None, attempt_step: int = 0) -> None:
        """Makes the accumulators and slots for the weights that are currently trainable; called before every training.

        Args:
            noise_secret: a private optimizer without a seed derives its noise from it; the same on all workers.
                Defaults to a new secret from the operating system.
            attempt_step: the first step that was or will be taken with this noise. Noise that is correlated over steps
                uses no draw from before it. Defaults to 0.

        Raises:
            ValueError: if the model has got trainable weights that its optimizer was not built with.
        """
        # The choice of the engine depends on the trainable weights, which may have changed since `compile`.
        clipped_sum.check_model(self, self._engine, clipped=privatized.needs_clipped_sum(self.optimizer))
        training_arguments.check_optimizer_knows(self.optimizer, self.trainable_variables)
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)
            if privatized.needs_clipped_sum(self.optimizer):
                # A new secret per training; an explicit seed repeats its noise, for tests.
                seed = self.optimizer.seed
                self.optimizer.rekey(noise_secret if seed is None else seed, attempt_step)
            if self._running_sum is not None:
                # A step that failed may have left its microbatches in the sum.
                self._running_sum.reset()
        if self._running_sum is None or not self._running_sum.fits(self.trainable_weights):
            with self.distribute_strategy.scope():
                self._running_sum = running_sum.RunningSum(self.trainable_weights, self.optimizer)
            self._gradients = tf.function(
                tf.autograph.experimental.do_not_convert(self._compute_gradients),
                jit_compile=self._jit_gradients,
                reduce_retracing=True,
            )

    def accumulate(self, x, y, sample_weight=None, mask=None):
        """Adds a microbatch to this replica's running sum.

        Args:
            x: inputs, any nest of [B, ...]; [B, K, ...] if `augmentation_multiplicity` is K > 1.
            y: targets, any nest of [B, ...], None for outputs without a loss.
            sample_weight: [B], or a nest with one per output; multiplies the loss before clipping. Defaults to 1.
            mask: [B], 0 for padding, which contributes nothing. Defaults to no padding.

        Returns:
            A `microbatch_gradients.Accumulated`.
        """
        # Inside another graph, a graph of its own would only cost memory.
        in_own_graph = tf.executing_eagerly() or self._jit_gradients
        compute = self._gradients if in_own_graph else self._compute_gradients
        return self._accumulate(compute, x, y, sample_weight, mask=mask)

    def _accumulate(self, compute, x, y, sample_weight=None, *, mask):
        targets = self._checked_targets(y, sample_weight)
        accumulated, sums = compute(x, targets, mask)
        present = tf.shape(accumulated.losses)[0] if mask is None else tf.math.count_nonzero(mask)
        self._running_sum.add(sums, present)
        return accumulated

    def _checked_targets(self, y, sample_weight):
        targets = per_output.without_none((y,) if sample_weight is None else (y, sample_weight))
        self._target_shapes.check(self._matched_loss.matched(targets, self.output))
        return targets

    def per_example_losses(self, y, predictions) -> tf.Tensor:
        """The compiled loss of each example, [B], without regularization."""
        return self._loss_fn((y,), predictions)

    def _compute_gradients(self, x, targets, mask):
        views = self._augmentation_multiplicity
        return microbatch_gradients.gradient_sum(
            self, self._loss_fn, x, targets, mask=mask, engine=self._engine, augmentation_multiplicity=views
        )

    def finish(self) -> None:
        """Ends the logical batch: noise, one all-reduce, one update of the weights; resets the running sum to zero."""
        sums, divisor = self._sums_and_divisor()
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        values = weight_penalties.add_gradients(sums.values, self.trainable_weights, divisor / replicas)
        if privatized.needs_clipped_sum(self.optimizer):
            # The regularization does not depend on the data, so the sensitivity of the sum is still the clip.
            update = clipping.ClippedSum(
                values=values,
                norms=tf.zeros([0]),
                l2_sensitivity=self.optimizer.current_l2_norm_clip,
                statistic=sums.statistic,
                remainder=sums.remainder,
            )
        else:
            update = [value / tf.cast(divisor, value.dtype) for value in values]
        self.optimizer.apply(update, self.trainable_weights)
        self._running_sum.reset()

    def squared_norms(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Squared L2 norms of the mean gradient before noise, and of the noise that `finish` will add to it (Figure 2).

        Call it on a replica after the last `accumulate` of a logical batch. The first norm is a private fact.

        Returns:
            Two scalars, the same on every replica; the second is 0 for optimizers without noise.
        """
        sums, divisor = self._sums_and_divisor()
        return running_sum.squared_norms(self, sums.values, divisor)

    def _sums_and_divisor(self):
        sums, count = self._running_sum.read()
        if self._batch_size is not None:
            return sums, tf.constant(self._batch_size, tf.float32)
        total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, count)
        return sums, tf.maximum(total, 1.0)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        *args,
        sampling="shuffled",
        **kwargs,
    ):
        """Keras' `fit`, which can also draw batches of another sampling scheme from arrays.

        Args:
            x: as in Keras, like all arguments that are not listed here.
            batch_size: as in Keras; at most the configured batch size. Defaults to the configured batch size.
            sampling: "shuffled", Keras' own batches, without amplification by sampling; "poisson";
                "random_allocation"; or "cyclic". With "poisson" each example of the arrays is in each batch with
                probability B / N, independently, where B is the configured `batch_size`. With "random_allocation" each
                example is in exactly one batch of each epoch, chosen at random, independently of the others. With
                "cyclic" one random partition into batches of B serves every epoch of the call, which noise that is
                correlated over steps needs. The draws come from a secret, or from the optimizer's seed if it has one.
                Batches are of any size, an empty batch is a step of noise alone, and an epoch is ceil(N / B) steps. For
                a dataset, "poisson" states that the user drew its batches in this way. A class of your own that derives
                from `noisy_sgd.sampling.Scheme` draws its batches likewise. Defaults to "shuffled".

        Returns:
            Keras' history. Training that has spent its `noisy_sgd.PrivacyBudget` ends with a sentence in the log.

        Raises:
            ValueError: for a `batch_size` above the configured one, a budget with another sampling scheme, or several
                workers; with a private optimizer, for callbacks that act on private facts (see `private_facts`).
        """
        foreign_arguments.refuse(kwargs)
        if not self.compiled:
            return super().fit(x, y)  # Keras raises its own error.
        training_arguments.check_one_host(self.distribute_strategy)
        bound = inspect.signature(super().fit).bind(x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs)
        fit = fitting.prepare(self, bound.arguments, sampling=sampling, batch_size=self._batch_size)
        if fit.any_size != self._any_size:
            # The traced step depends on whether a batch may be larger than the nominal size.
            self._any_size, self.train_function = fit.any_size, None
        self.sampling, self._secret = fit.scheme, fit.secret
        try:
            with training_arguments.naming_failed_steps(self._batch_size):
                return super().fit(**fit.arguments)
        except budget.BudgetSpent:
            return self.history

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is not None and self.distribute_strategy.num_replicas_in_sync > 1:
            # Keras takes the mean over the replicas' parts, which fails for parts of different sizes.
            data_batch, iterator = replica_parts.first_part(self.distribute_strategy, iterator), None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _symbolic_build(self, iterator=None, data_batch=None):
        # Keras calls the model on the whole batch to build the metrics, so the axis of views must go.
        if data_batch is not None:
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data_batch)
            batch_shapes.check(x, y, sample_weight)
            self._checked_targets(y, sample_weight)
            data_batch = (batch_shapes.first_view(x, self.inputs, self._augmentation_multiplicity), y, sample_weight)
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)

    def make_train_function(self, force=False):
        """Keras' train function, after `prepare`; it splits a batch between the replicas if Keras does not."""
        overrides.check(self, PrivateModel, self.optimizer)
        training_arguments.check_one_host(self.distribute_strategy)
        fits = self._running_sum is not None and self._running_sum.fits(self.trainable_weights)
        # Once: a callback that calls this again during a `fit` must not start the count of released steps again.
        secret, self._secret = self._secret, None
        self.prepare(secret, noised.first_step_of_fit(self.optimizer))
        before = self.train_function
        super().make_train_function(force=force or not fits)
        self.train_function = replica_parts.split_new(self, before, self.train_function)

    def make_test_function(self, force=False):
        """Keras' test function; it splits a batch between the replicas if Keras does not."""
        before = self.test_function
        super().make_test_function(force=force)
        self.test_function = replica_parts.split_new(self, before, self.test_function)

    def train_step(self, data):
        """One logical batch on this replica: its microbatches, then `finish`."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, y = arguments.dense("x", x), arguments.dense("y", y)
        batch_shapes.check(x, y, sample_weight)
        if self._batch_size is not None and not self._any_size:
            x = training_arguments.batch_within(x, self._batch_size)
        size = tf.shape(tf.nest.flatten(x)[0])[0]
        losses, predictions = self._accumulate_all(x, y, sample_weight, size)
        shown = weight_penalties.add_to_mean(losses, size, self.trainable_weights)
        keras_internals.loss_tracker(self).update_state(shown, sample_weight=size)
        if self._matched_loss.saw_masks:
            first_view = batch_shapes.first_view(x, self.inputs, self._augmentation_multiplicity)
            predictions = prediction_masks.attach(self, first_view, predictions)
            sample_weight = prediction_masks.expand_weights(sample_weight)
        with tf.control_dependencies(tf.nest.flatten(x)):
            # At the end of the data there is no step, and the optimizer must not count one.
            self.finish()
        if len(keras.tree.flatten(predictions)) > 1:
            # This updates the mean loss of each output, which Keras reports.
            self.compute_loss(x, y, predictions, sample_weight)
        return self.compute_metrics(x, y, predictions, sample_weight=sample_weight)

    def _accumulate_all(self, x, y, sample_weight, size):
        """Losses and predictions of a batch of examples, in microbatches."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        known = self._batch_size is None or tf.nest.flatten(x)[0].shape[0] is not None
        if self._microbatch_size is None and replicas == 1 and known:
            return self.accumulate(x, y, sample_weight)[:2]
        # A static size lets the engine choose its method. A replica without examples, which the last batch of an epoch
        # may leave, takes one microbatch of padding.
        whole = tf.maximum(size, 1) if self._batch_size is None else -(-self._batch_size // replicas)
        batch = per_output.without_none((y,) if sample_weight is None else (y, sample_weight))
        return microbatches.map_in_order(
            lambda microbatch, mask: self._accumulate(self._gradients, *microbatch, mask=mask)[:2],
            (x, *batch),
            size,
            self._microbatch_size or whole,
        )

    def get_compile_config(self):
        """The compile arguments of Keras and of this class."""
        config = super().get_compile_config()
        if config:
            config.update(
                loss=saved_losses.serialize(self._matched_loss.keras_loss),
                microbatch_size=self._microbatch_size,
                batch_size=self._batch_size,
                engine=self._engine,
                augmentation_multiplicity=self._augmentation_multiplicity,
                jit_compile=self._jit_gradients,
            )
            config.pop("auto_scale_loss", None)
        return config

    def compile_from_config(self, config):
        """Compiles a loaded or cloned model like the original."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)
