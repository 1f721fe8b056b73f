"""A Keras callback that shows epsilon as DP-SGD trains, and ends the training before a budget is passed.

    budget = noisy_sgd.PrivacyBudget(3.0, delta=1e-5, num_examples=60_000)
    model.fit(images, labels, epochs=100, callbacks=[budget])

What may be claimed depends on how batches are made. Keras' `fit` on arrays passes over the examples again and again,
shuffled: an example takes part at most once in a pass, whatever the order, so the cost is one Gaussian for every pass
that was begun (sampling="shuffled", without amplification; see `noisy_sgd.sampling`). Where a dataset is not
known to be one pass, every step counts (see `participation`).
"""

from collections.abc import Sequence

import keras
from absl import logging

from noisy_sgd import checks
from noisy_sgd import sampling as schemes
from noisy_sgd.optimizers import privatized
from noisy_sgd.privacy import accounting, calibration
from noisy_sgd.privacy import plan as plans
from noisy_sgd.training import participation


class BudgetSpent(Exception):
    """No further step fits a privacy budget; `PrivateModel.fit` ends quietly on it."""


class PrivacyBudget(keras.callbacks.Callback):
    """Logs "epsilon", what the training has spent, and stops on the last step that fits a budget.

    For `PrivateModel.fit` and `noisy_sgd.training.loop.train`, with `noisy_sgd.DPSGD`. Noise multiplier, batch size and
    a learned clip's own cost come from the optimizer. Give the same object to every `fit` of a model: it counts their
    steps together. Steps that the optimizer took before (`iterations`) count as passes over all examples.

    With sampling="shuffled", every epoch of `fit` counts as one pass over the examples where it is known to be no more:
    arrays, and datasets of a known number of batches, at most ceil(num_examples / batch_size) of them, that hold every
    example once. A dataset with `repeat`, a generator, or a dataset of unknown size counts every step as a
    participation of every example, and the log says so once; where such a dataset ends by itself, the epoch counts as
    one pass when it is over. During a pass the log shows what it costs when it is over.

    Training that has spent its budget ends with a sentence in the log; a later `fit` then takes no step.

    Args:
        epsilon: the budget, positive.
        delta: in (0, 1), well below 1 / num_examples.
        num_examples: N, how many training examples there are.
        sampling: None takes what the training says: fit(x, y, sampling="poisson"), or Keras' shuffled batches. A name
            claims it: "poisson" for a dataset whose batches you draw so yourself, each example with probability
            batch_size / N, independently and secretly. Defaults to None.
        accountant: "pld" or "rdp". Defaults to "pld".
        neighbors: "add_or_remove" or "replace_one". Defaults to "add_or_remove".

    Raises:
        ValueError: for an argument out of range; when training begins, for an optimizer that is not private, a budget
            that not even the first step fits, or `steps_per_execution` > 1 where that could pass it.
    """

    def __init__(
        self,
        epsilon: float,
        *,
        delta: float,
        num_examples: int,
        sampling: str | None = None,
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
        # Uses are what epsilon is a function of: steps under "poisson", else participations of one example.
        self._uses_before, self._steps = 0, 0
        # The optimizer's step: where the current stretch of the loop began, and when it was last looked at.
        self._first, self._reached = 0, None
        self._said = set()

    @property
    def sampling(self) -> str | None:
        """How the batches are claimed to be drawn; None for as the training draws them."""
        return self._claimed

    @property
    def amplifies(self) -> bool:
        """Whether the batches are taken to be drawn at random, of any size."""
        return self._scheme.amplifies

    @property
    def num_examples(self) -> int:
        """N, how many training examples the budget is for."""
        return self._num_examples

    @property
    def delta(self) -> float:
        """What epsilon is given at."""
        return self._accounting["delta"]

    @property
    def plan(self) -> plans.Plan | None:
        """All that was trained, as a plan, whose `text` is one line; None before the first training."""
        return None if self._plan is None else self._plan.with_steps(self._uses(self._steps) * self._stride)

    @property
    def spent(self) -> float:
        """Epsilon of all that was trained; a pass that was begun is spent."""
        return self._epsilon(self._uses(self._steps))

    @property
    def last_step(self) -> int:
        """In `loop.train`: the optimizer's `iterations` after the last step that fits."""
        return self._first + max(0, self._allowed - self._uses_before) * self._stride

    def observe(self, data: participation.Data, kind: type[schemes.Scheme]) -> None:
        """Takes what is known of the data that the next `fit` trains on, and how their batches are drawn.

        Raises:
            ValueError: for another scheme than that of steps which were counted.
        """
        if self._optimizer is not None and kind is not self._scheme:
            raise ValueError(
                "`callbacks` must hold a PrivacyBudget of its own for every way of drawing batches: this one has "
                f"counted {self._scheme.name!r} ones; make a new one, with what is left of the budget if the data are "
                f"the same. Received: sampling={kind.name!r}"
            )
        if self._steps:
            self._close_stretch(0)
        self._data, self._scheme = data, kind

    def on_train_begin(self, logs=None):
        """Reads the optimizer; in `loop.train`, finds where it goes on."""
        optimizer = self.model.optimizer
        if not privatized.needs_clipped_sum(optimizer):
            raise ValueError(
                "`optimizer` must be private, such as noisy_sgd.DPSGD, for a PrivacyBudget: without clipping and noise "
                f"no budget is kept. Received: optimizer of type {type(optimizer).__name__}"
            )
        if self._optimizer is None:
            self._read(optimizer)
        elif optimizer is not self._optimizer:
            raise ValueError(
                "`callbacks` must hold a PrivacyBudget of its own for every optimizer: this one has counted another's "
                "steps; make a new one, with what is left of the budget if the data are the same. "
                f"Received: epsilon={self.epsilon:g}, of which {self.spent:.4g} is spent"
            )
        if optimizer.seed is not None:
            self._say_once(
                "PrivacyBudget: the optimizer has an explicit seed, from which its noise can be recomputed: nothing is "
                "guaranteed, and epsilon is what the same training would have with secret noise"
            )
        if self._in_order:
            if self.sampling is None:
                raise ValueError(
                    "`sampling` must be given to a PrivacyBudget of `loop.train`, which does not know how its batches "
                    "were drawn: 'shuffled' or 'poisson'. Received: sampling=None"
                )
            step = _iterations(optimizer)
            if step < (self._reached or 0):
                # Steps are taken again, in the pass that they belong to.
                self._close_stretch(step - step % self._stride)
            self._steps, self._reached = step - self._first, step
            if self._uses(self._steps + 1) > self._allowed:
                self._refuse_a_budget_without_a_step()
                self._say_it_is_spent()

    def on_epoch_begin(self, epoch, logs=None):
        """Under `fit`, begins a stretch of its own, after whatever was trained elsewhere meanwhile."""
        if self._in_order:
            return
        # Not in on_train_begin: keras.callbacks.BackupAndRestore brings the optimizer's step back there.
        step = _iterations(self._optimizer)
        elsewhere = max(0, step - (self._reached or 0))
        if self._reached is None:
            # Of another process, or of a `fit` without a budget.
            self._uses_before += -(-elsewhere // self._stride)
        else:
            self._uses_before += elsewhere
        self._reached = step
        self._say_that_every_step_counts()
        if self._uses(1) > self._allowed:
            self._refuse_a_budget_without_a_step()
            self._say_it_is_spent()
            raise BudgetSpent
        self._refuse_long_executions(epoch)

    def on_train_batch_end(self, batch, logs=None):
        """Logs epsilon, and stops where the next step would not fit."""
        self._steps = batch + 1 - self._first
        self._reached = _iterations(self._optimizer)
        uses = self._uses(self._steps)
        if logs is not None:
            # The accountant is slow: asked once per pass.
            shown = _up(uses, self._pass) if self._every_step_counts else uses
            logs["epsilon"] = self._epsilon(max(uses, min(shown, self._allowed)))
        if self._uses(self._steps + 1) > self._allowed:
            self.model.stop_training = True
            self._say_it_is_spent()

    def on_epoch_end(self, epoch, logs=None):
        """Logs epsilon, and stops where the next epoch would not fit."""
        self._reached = _iterations(self._optimizer)
        if not self._in_order:
            if not self.model.stop_training:
                self._data = self._data.after_an_epoch(self._steps)
            self._close_stretch(0)
        if logs is not None:
            logs["epsilon"] = self.spent
        if not self._in_order and self._uses(1) > self._allowed and not self.model.stop_training:
            self.model.stop_training = True
            self._say_it_is_spent()

    def _read(self, optimizer) -> None:
        scheme = self._scheme(self._num_examples, optimizer.batch_size)
        self._plan = plans.Plan(event=optimizer.mechanism, sampling=scheme, num_steps=0, **self._accounting)
        self._pass = scheme.steps_per_epoch
        self._optimizer = optimizer
        self._allowed = calibration.most_steps(self.epsilon, self._plan) // self._stride

    @property
    def _stride(self) -> int:
        """Steps that one use stands for, for the accountant."""
        return self._plan.sampling.stride

    @property
    def _counts_passes(self) -> bool:
        """Whether an example takes part once in every pass over the examples, so that a pass is a use."""
        return issubclass(self._scheme, schemes.Shuffled)

    @property
    def _in_order(self) -> bool:
        """Whether a step's place in its pass is a function of the step, as in our own loop."""
        return "first_step" in self.params

    @property
    def _every_step_counts(self) -> bool:
        """Whether every step is a use."""
        if self._in_order or not self._counts_passes:
            return not self._counts_passes
        return self._data.counts_every_step(self._pass)

    def _uses(self, steps: int) -> int:
        """All uses once the current stretch has so many steps."""
        if self._in_order or not self._counts_passes:
            return self._uses_before + -(-steps // self._stride)
        return self._uses_before + self._data.participations(steps, self._pass)

    def _close_stretch(self, first: int) -> None:
        self._uses_before = self._uses(self._steps)
        self._first, self._steps = first, 0

    def _epsilon(self, uses: int) -> float:
        # Remembered by the accountant: the same number is asked for at every batch of a pass.
        return self._plan.with_steps(uses * self._stride).epsilon if uses else 0.0

    def _refuse_a_budget_without_a_step(self) -> None:
        if self._uses(self._steps) == 0:
            needs = "a pass over the data" if self._counts_passes else "a step of this noise"
            raise ValueError(
                f"`epsilon` must be at least {self._epsilon(1):.6g}, which {needs} costs, for one step to fit the "
                f"privacy budget; raise the noise multiplier or the budget. Received: epsilon={self.epsilon:g}"
            )

    def _say_it_is_spent(self) -> None:
        uses = self._uses(self._steps)
        logging.warning(
            "PrivacyBudget ends the training: epsilon=%.4g of %g is spent, and the next %s would make it %.4g",
            self._epsilon(uses),
            self.epsilon,
            "step" if self._every_step_counts else "pass over the data",
            self._epsilon(uses + 1),
        )

    def _say_that_every_step_counts(self) -> None:
        if self._counts_passes and self._every_step_counts:
            self._say_once(
                "PrivacyBudget counts every step as a participation of every example: "
                f"{self._data.why_every_step(self._pass)}; give `fit` arrays, or a dataset that holds every example "
                "once, without `repeat`, in batches of the optimizer's `batch_size` "
                "(tf.data.experimental.assert_cardinality tells the number of batches)"
            )

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            logging.warning("%s", sentence)

    def _refuse_long_executions(self, epoch: int) -> None:
        together = self.model.steps_per_execution
        if together == 1:
            return
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        planned = None
        if steps is not None:
            planned = self._uses_before + (epochs - epoch) * (self._uses(steps) - self._uses_before)
        if planned is None or planned > self._allowed:
            raise ValueError(
                "`steps_per_execution` must be 1 where the training could pass its privacy budget in the middle of "
                f"several steps. Received: steps_per_execution={together}"
            )


def first(callbacks: Sequence[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    """The callbacks in an order in which all others see the epsilon that a `PrivacyBudget` logs."""
    return sorted(callbacks, key=lambda callback: not isinstance(callback, PrivacyBudget))


def last_step(callbacks: Sequence[keras.callbacks.Callback], num_steps: int) -> int:
    """The last step, exclusive, that every `PrivacyBudget` among the callbacks allows, and at most `num_steps`."""
    return min([num_steps, *(callback.last_step for callback in callbacks if isinstance(callback, PrivacyBudget))])


def observe(callbacks, x, steps_per_epoch: int | None, kind: type[schemes.Scheme]) -> bool:
    """Tells every `PrivacyBudget` among the callbacks what `fit` trains on.

    Args:
        callbacks: of `fit`: a list, a `keras.callbacks.CallbackList`, or None.
        x: its data.
        steps_per_epoch: as given to `fit`.
        kind: how the batches were drawn, as given to `fit`.

    Returns:
        Whether the batches are Poisson-sampled by whoever gives them, and so may be larger than the nominal size.

    Raises:
        ValueError: for a budget that claims another sampling than `fit` does.
    """
    data, budgets = participation.Data.of(x, steps_per_epoch), _budgets(callbacks)
    for budget in budgets:
        if budget.sampling not in (None, kind.name) and (data.one_pass or kind.amplifies):
            raise ValueError(
                f"`sampling` of the PrivacyBudget must be that of `fit`, which is {kind.name!r}; leave it out, or give "
                f"`fit` the other: fit(x, y, sampling={budget.sampling!r}). Received: sampling={budget.sampling!r}"
            )
        budget.observe(data, schemes.named(budget.sampling) if budget.sampling else kind)
    return kind.amplifies or any(budget.amplifies for budget in budgets)


def observe_scheme(callbacks, scheme: schemes.Scheme) -> None:
    """Tells every `PrivacyBudget` among the callbacks what draws the batches.

    Raises:
        ValueError: for a budget that claims another sampling, or counts another number of examples.
    """
    for budget in _budgets(callbacks):
        if budget.sampling not in (None, scheme.name):
            raise ValueError(
                f"`sampling` of the PrivacyBudget must be that of `fit`, {scheme.name!r}, or be left out. "
                f"Received: sampling={budget.sampling!r}"
            )
        checks.require(
            budget.num_examples == scheme.num_examples,
            "num_examples",
            f"of the PrivacyBudget must be the {scheme.num_examples} examples that `fit` draws batches from",
            budget.num_examples,
        )
        budget.observe(participation.Data(), type(scheme))


def _budgets(callbacks) -> list[PrivacyBudget]:
    listed = getattr(callbacks, "callbacks", callbacks) or ()
    return [callback for callback in listed if isinstance(callback, PrivacyBudget)]


def _iterations(optimizer: keras.optimizers.Optimizer) -> int:
    """The steps done; of the replicas', which all have the same, the first one's."""
    return int(optimizer.iterations.numpy())


def _up(count: int, stride: int) -> int:
    """Rounded up to a multiple."""
    return -(-count // stride) * stride
