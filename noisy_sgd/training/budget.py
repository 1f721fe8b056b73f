"""A Keras callback that logs epsilon while DP-SGD trains, and ends the training before it exceeds a privacy budget.

    budget = noisy_sgd.PrivacyBudget(3.0, delta=1e-5, num_examples=60_000)
    model.fit(images, labels, epochs=100, callbacks=[budget])

The guarantee depends on how the batches are drawn. Keras' `fit` on arrays passes over the shuffled examples again and
again. An example takes part at most once in a pass, in any order. So each pass that was begun costs one Gaussian
mechanism (sampling="shuffled", without amplification; see `noisy_sgd.sampling`). If a dataset is not known to be one
pass, every step counts (see `participation`).
"""

import dataclasses

import keras
from absl import logging

from noisy_sgd import checks
from noisy_sgd import sampling as schemes
from noisy_sgd.optimizers import privatized
from noisy_sgd.privacy import accounting, calibration
from noisy_sgd.privacy import plan as plans
from noisy_sgd.training import participation


class BudgetSpent(Exception):
    """No further step fits the privacy budget; `PrivateModel.fit` catches it and ends the training."""


class PrivacyBudget(keras.callbacks.Callback):
    """Logs the epsilon that the training has spent as "epsilon", and stops after the last step that fits the budget.

    It works with `PrivateModel.fit` and `noisy_sgd.training.loop.train`, and with `noisy_sgd.DPSGD`. The noise
    multiplier, the batch size and the cost of a learned clip come from the optimizer. Pass the same object to every
    `fit` of a model: it counts all their steps together. Steps that the optimizer took before (`iterations`) count as
    passes over all examples. If `fit` draws batches with amplification, `sampling` must claim the same of these earlier
    steps. For "random_allocation" each of them then counts as a whole epoch, because nobody knows where each training
    began. In a `fit` with random allocation, every epoch of the scheme that was begun counts as a whole.

    If the noise is correlated over steps (`noisy_sgd.CorrelatedNoise`), every `fit` is a release of its own, of the
    epochs that it began, and the budget must see all steps of the optimizer.

    With sampling="shuffled", an epoch of `fit` counts as one pass over the examples if it is known to be at most one:
    arrays, and datasets that hold every example once in a known number of batches, at most
    ceil(num_examples / batch_size). For a dataset with `repeat`, a generator, or a dataset of unknown size, every step
    counts as a participation of every example, and the log says so once. If such a dataset ends by itself, the epoch
    counts as one pass after its end. During a pass the log shows the epsilon at the end of the pass.

    When the budget is spent, the training ends with a sentence in the log. A later `fit` then takes no step.

    Args:
        epsilon: the budget, positive.
        delta: in (0, 1), well below 1 / num_examples.
        num_examples: N, the number of training examples.
        sampling: None takes the scheme from the training: fit(x, y, sampling="poisson"), or Keras' shuffled batches.
            "poisson" claims that you draw the batches of a dataset yourself, each example with probability
            batch_size / N, independently and secretly. Any other scheme is that of `fit` or of `loop.train`. Defaults
            to None.
        accountant: "pld" or "rdp". Defaults to "pld".
        neighbors: "add_or_remove" or "replace_one". Defaults to "add_or_remove".

    Raises:
        ValueError: for an argument out of range; when training begins, for an optimizer that is not private, a budget
            that is too small for the first step, or `steps_per_execution` > 1 where that could exceed the budget.
    """

    def __init__(
        self,
        epsilon: float,
        *,
        delta: float,
        num_examples: int,
        sampling: str | type[schemes.Scheme] | None = None,
        accountant: str = "pld",
        neighbors: str = "add_or_remove",
    ):
        super().__init__()
        self.epsilon = checks.real("epsilon", epsilon, above=0)
        self._num_examples = checks.count("num_examples", num_examples, least=1)
        self._claimed = None if sampling is None else schemes.named(sampling).name
        self._scheme = schemes.named(sampling or "shuffled")
        self._accounting = {
            "delta": checks.real("delta", delta, above=0, below=1),
            "accountant": checks.choice("accountant", accountant, accounting.ACCOUNTANTS),
            "neighbors": checks.choice("neighbors", neighbors, accounting.NEIGHBORS),
        }
        self._plan = None
        self._optimizer = None
        self._data = participation.Data()
        self._allowed, self._pass = 0, 1
        # Epsilon is a function of the number of uses: steps under "poisson", else participations of one example.
        self._uses_before, self._steps = 0, 0
        # The current stretch is consecutive steps of one scheme: the scheme's step at its beginning, and the number
        # that counts these steps at its beginning (the optimizer's `iterations`, or the batch of the epoch).
        self._begin, self._first = 0, 0
        # The optimizer's step when it was last read.
        self._reached = None
        self._logged = set()

    @property
    def sampling(self) -> str | None:
        """The sampling scheme that the budget claims; None takes it from the training."""
        return self._claimed

    @property
    def amplifies(self) -> bool:
        """Whether the batches are drawn with amplification by sampling, and so are of any size."""
        return self._scheme.amplifies

    @property
    def num_examples(self) -> int:
        """N, the number of training examples that the budget is for."""
        return self._num_examples

    @property
    def delta(self) -> float:
        """The delta of the guarantee."""
        return self._accounting["delta"]

    @property
    def plan(self) -> plans.Plan | None:
        """All that was trained, as a plan, whose `text` is one line; None before the first training."""
        return None if self._plan is None else self._plan.with_steps(self._uses(self._steps) * self._stride)

    @property
    def spent(self) -> float:
        """The epsilon of all steps so far; a pass that was begun counts as a whole pass."""
        return self._epsilon(self._uses(self._steps))

    @property
    def last_step(self) -> int:
        """In `loop.train`: the optimizer's `iterations` after the last step that fits."""
        return self._first + max(0, self._allowed - self._uses_before) * self._stride

    def observe(self, data: participation.Data, kind: type[schemes.Scheme], first_step: int = 0) -> None:
        """Sets the training data of the next `fit` and the sampling scheme of its batches.

        Args:
            data: what is known about the batches.
            kind: the scheme.
            first_step: the scheme's step of the first batch. Defaults to 0.

        Raises:
            ValueError: for another scheme than that of the steps that were counted before.
        """
        if self._optimizer is not None and kind is not self._scheme:
            raise ValueError(
                "`callbacks` must hold a PrivacyBudget of its own for every sampling scheme: this one has counted "
                f"{self._scheme.name!r} batches; make a new one, with the rest of the budget if the data are the same. "
                f"Received: sampling={kind.name!r}"
            )
        if self._steps:
            self._close_stretch()
        self._data, self._scheme, self._begin = data, kind, first_step

    def on_train_begin(self, logs=None):
        """Reads the optimizer; in `loop.train`, also finds the step where the training resumes."""
        optimizer = self.model.optimizer
        if not privatized.needs_clipped_sum(optimizer):
            raise ValueError(
                "`optimizer` must be private, such as noisy_sgd.DPSGD, for a PrivacyBudget: without clipping and noise "
                f"there is no guarantee. Received: optimizer of type {type(optimizer).__name__}"
            )
        if optimizer.mechanism.not_private is not None:
            raise ValueError(
                "`optimizer` must have a finite epsilon for a PrivacyBudget, and this one has none: "
                f"{optimizer.mechanism.not_private}. Received: optimizer of type {type(optimizer).__name__}"
            )
        if self._optimizer is None:
            self._read(optimizer)
        elif optimizer is not self._optimizer:
            raise ValueError(
                "`callbacks` must hold a PrivacyBudget of its own for every optimizer: this one has counted the steps "
                "of another optimizer; make a new one, with the rest of the budget if the data are the same. "
                f"Received: epsilon={self.epsilon:g}, of which {self.spent:.4g} is spent"
            )
        if optimizer.seed is not None:
            self._log_once(
                "PrivacyBudget: the optimizer has an explicit seed, from which its noise can be recomputed: nothing is "
                "guaranteed, and epsilon is that of the same training with secret noise"
            )
        if self._in_order:
            if not self._plan.independent_steps:
                raise ValueError(
                    "`callbacks` must hold no PrivacyBudget in `loop.train` where the noise is correlated over steps, "
                    "because the budget does not know which steps share their noise; use fit(x, y, sampling='cyclic'), "
                    f"or a recorded run. Received: optimizer of type {type(optimizer).__name__}"
                )
            if self.sampling is None:
                raise ValueError(
                    "`sampling` of a PrivacyBudget must be 'shuffled' or 'poisson' for `loop.train`, because the loop "
                    "does not know how its batches were drawn. Received: sampling=None"
                )
            step = _iterations(optimizer)
            if step < (self._reached or 0):
                # Steps are repeated, in the pass that they belong to.
                self._close_stretch()
                self._begin = self._first = step - step % self._stride
            self._steps, self._reached = step - self._first, step
            if self._uses(self._steps + 1) > self._allowed:
                self._refuse_a_budget_without_a_step()
                self._log_that_it_is_spent()

    def on_epoch_begin(self, epoch, logs=None):
        """Under `fit`, begins a new stretch, and counts steps that the optimizer took without this callback."""
        if self._in_order:
            return
        # Not in on_train_begin, where keras.callbacks.BackupAndRestore restores the optimizer's step.
        step = _iterations(self._optimizer)
        self._refuse_other_steps(step - (self._reached or 0))
        elsewhere = max(0, step - (self._reached or 0))
        if elsewhere and self.sampling is None and self.amplifies:
            raise ValueError(
                f"`sampling` of the PrivacyBudget must be given: the optimizer has taken {elsewhere} steps that this "
                f"budget has not seen; pass {self._scheme.name!r} if their batches were drawn so, too, or make a new "
                "optimizer. Received: sampling=None"
            )
        if self._reached is None:
            # These steps are of another process, or of a `fit` without a budget.
            self._uses_before += -(-elsewhere // self._stride) if self._counts_passes else elsewhere
        else:
            self._uses_before += elsewhere
        self._reached = step
        self._log_that_every_step_counts()
        if self._uses(self._steps + 1) > self._allowed:
            self._refuse_a_budget_without_a_step()
            self._log_that_it_is_spent()
            raise BudgetSpent
        self._refuse_long_executions(epoch)

    def on_train_batch_end(self, batch, logs=None):
        """Logs epsilon, and stops if the next step does not fit the budget."""
        seen, reached = self._steps, self._reached
        self._steps = batch + 1 - self._first
        self._reached = _iterations(self._optimizer)
        self._refuse_other_steps(self._reached - reached - (self._steps - seen) if reached is not None else 0)
        uses = self._uses(self._steps)
        if logs is not None:
            # The accountant is slow, so it is called once per pass.
            logged = _rounded_up(uses, self._pass) if self._every_step_counts else uses
            logs["epsilon"] = self._epsilon(max(uses, min(logged, self._allowed)))
        if self._uses(self._steps + 1) > self._allowed:
            self.model.stop_training = True
            self._log_that_it_is_spent()

    def on_epoch_end(self, epoch, logs=None):
        """Logs epsilon, and stops if the next epoch does not fit the budget."""
        self._reached = _iterations(self._optimizer)
        if not self._in_order and self._counts_passes:
            if not self.model.stop_training:
                self._data = self._data.after_an_epoch(self._steps)
            self._close_stretch()
        elif not self._in_order:
            # The stretch goes on: the batches of the next epoch are counted from 0 again.
            self._first = -self._steps
        if logs is not None:
            logs["epsilon"] = self.spent
        if not self._in_order and self._uses(self._steps + 1) > self._allowed and not self.model.stop_training:
            self.model.stop_training = True
            self._log_that_it_is_spent()

    def _read(self, optimizer) -> None:
        scheme = self._scheme(self._num_examples, optimizer.batch_size)
        self._plan = plans.Plan(event=optimizer.mechanism, sampling=scheme, num_steps=0, **self._accounting)
        self._pass = scheme.steps_per_epoch
        self._optimizer = optimizer
        self._allowed = calibration.most_steps(self.epsilon, self._plan) // self._stride

    @property
    def _stride(self) -> int:
        """The number of steps that the accountant counts for one use."""
        return self._plan.sampling.stride

    @property
    def _counts_passes(self) -> bool:
        """Whether an example takes part once in every pass over the examples, so that each pass is one use."""
        return issubclass(self._scheme, schemes.Shuffled)

    @property
    def _in_order(self) -> bool:
        """Whether the place of a step in its pass is a function of the step, as in `loop.train`."""
        return "first_step" in self.params

    @property
    def _every_step_counts(self) -> bool:
        """Whether every step is a use."""
        if self._in_order or not self._counts_passes:
            return not self._counts_passes and self._stride == 1
        return self._data.counts_every_step(self._pass)

    def _uses(self, steps: int) -> int:
        """The total number of uses after this number of steps of the current stretch."""
        if self._in_order or not self._counts_passes:
            counted = self._plan.sampling.counted_steps(self._begin, self._begin + steps)
            return self._uses_before + counted // self._stride
        return self._uses_before + self._data.participations(steps, self._pass)

    def _close_stretch(self) -> None:
        uses = self._uses(self._steps)
        if self._plan.independent_steps:
            self._uses_before = uses
        else:
            self._plan = dataclasses.replace(self._plan, earlier=(*self._plan.earlier, uses * self._stride))
            self._allowed = calibration.most_steps(self.epsilon, self._plan) // self._stride
        self._first, self._steps = 0, 0

    def _epsilon(self, uses: int) -> float:
        # The accountant caches this: every batch of a pass asks for the same number.
        return self._plan.with_steps(uses * self._stride).epsilon if uses or self._plan.earlier else 0.0

    def _refuse_other_steps(self, count: int) -> None:
        """Refuses that the optimizer took, or took back, steps elsewhere, if the noise is correlated over steps."""
        if count and not self._plan.independent_steps:
            raise ValueError(
                "`callbacks` must hold a PrivacyBudget that sees every step of an optimizer whose noise is correlated "
                f"over steps; make a new optimizer. Received: iterations={_iterations(self._optimizer)}, which differs "
                f"by {count} from the steps that the budget has seen"
            )

    def _refuse_a_budget_without_a_step(self) -> None:
        if self._uses(self._steps) == 0 and not self._plan.earlier:
            unit = "a pass over the data" if self._counts_passes or self._stride > 1 else "a step with this noise"
            raise ValueError(
                f"`epsilon` must be at least {accounting.rounded_up(self._epsilon(1))}, which {unit} costs, for one "
                "step to fit the privacy budget; raise the noise multiplier or the budget. "
                f"Received: epsilon={self.epsilon:g}"
            )

    def _log_that_it_is_spent(self) -> None:
        uses = self._uses(self._steps)
        logging.warning(
            "PrivacyBudget ends the training: epsilon=%.4g of %g is spent, and the next %s would make it %.4g",
            self._epsilon(uses),
            self.epsilon,
            "step" if self._every_step_counts else "pass over the data",
            self._epsilon(uses + 1),
        )

    def _log_that_every_step_counts(self) -> None:
        if self._counts_passes and self._every_step_counts:
            self._log_once(
                "PrivacyBudget counts every step as a participation of every example: "
                f"{self._data.why_every_step(self._pass)}; pass arrays to `fit`, or a dataset that holds every example "
                "once, without `repeat`, in batches of the optimizer's `batch_size` "
                "(tf.data.experimental.assert_cardinality sets the number of batches)"
            )

    def _log_once(self, sentence: str) -> None:
        if sentence not in self._logged:
            self._logged.add(sentence)
            logging.warning("%s", sentence)

    def _refuse_long_executions(self, epoch: int) -> None:
        together = self.model.steps_per_execution
        if together == 1:
            return
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        planned = None
        if steps is not None:
            if self._counts_passes:
                planned = self._uses_before + (epochs - epoch) * (self._uses(steps) - self._uses_before)
            else:
                planned = self._uses(self._steps + (epochs - epoch) * steps)
        if planned is None or planned > self._allowed:
            raise ValueError(
                "`steps_per_execution` must be 1 where the training could exceed its privacy budget in the middle of "
                f"an execution. Received: steps_per_execution={together}"
            )


def _iterations(optimizer: keras.optimizers.Optimizer) -> int:
    """The number of steps that the optimizer has done; all replicas have the same number."""
    return int(optimizer.iterations.numpy())


def _rounded_up(count: int, stride: int) -> int:
    """The count, rounded up to a multiple of the stride."""
    return -(-count // stride) * stride
