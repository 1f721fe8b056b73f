"""A Keras callback that shows epsilon as DP-SGD trains, and ends the training before a budget is passed.

    budget = noisy_sgd.PrivacyBudget(3.0, delta=1e-5, num_examples=60_000)
    model.fit(images, labels, epochs=100, callbacks=[budget])

What may be claimed depends on how batches are made. Keras' `fit` on arrays passes over the examples again and again,
shuffled: an example takes part at most once in a pass, whatever the order, so the cost is one Gaussian for every pass
that was begun (sampling="shuffled", without amplification; see `noisy_sgd.privacy.accounting`).
"""

import warnings
from collections.abc import Sequence

import keras

from noisy_sgd.optimizers import dp_sgd
from noisy_sgd.privacy import accounting, arguments, calibration


class PrivacyBudget(keras.callbacks.Callback):
    """Logs "epsilon", what the training has spent, and stops on the last step that fits a budget.

    For `PrivateModel.fit` and `noisy_sgd.training.loop.train`, with `noisy_sgd.DPSGD`. Noise multiplier, batch size and
    a learned clip's own cost come from the optimizer. Steps that the optimizer has done before (`iterations`) count;
    give the same object to every `fit` of a model, for it also remembers in how many passes they were taken.

    Under `fit` every Keras epoch is taken for a new pass over the data, and a long one for one pass in every
    ceil(num_examples / batch_size) steps: a dataset must not repeat examples within so many steps. During a pass the
    log shows what it costs when it is over.

    Args:
        epsilon: the budget, positive.
        delta: in (0, 1), well below 1 / num_examples.
        num_examples: N, how many training examples there are.
        sampling: "shuffled", or "poisson" where each example is in each batch with probability batch_size / N,
            independently and secretly; `fit` on arrays does not do that. Defaults to "shuffled".
        accountant: "pld" or "rdp". Defaults to "pld".
        neighbours: "add_or_remove" or "replace_one". Defaults to "add_or_remove".

    Raises:
        ValueError: for an argument out of range; when training begins, for an optimizer that is no DPSGD, a budget that
            not even the first step fits, or `steps_per_execution` > 1 where that could pass it.
    """

    def __init__(
        self,
        epsilon: float,
        *,
        delta: float,
        num_examples: int,
        sampling: str = "shuffled",
        accountant: str = "pld",
        neighbours: str = "add_or_remove",
    ):
        super().__init__()
        self.epsilon = arguments.real("epsilon", epsilon, above=0)
        self._setting = {
            "num_examples": arguments.count("num_examples", num_examples, least=1),
            "delta": arguments.real("delta", delta, above=0, below=1),
            "accountant": arguments.choice("accountant", accountant, accounting.ACCOUNTANTS),
            "sampling": arguments.choice("sampling", sampling, accounting.SAMPLINGS),
            "neighbours": arguments.choice("neighbours", neighbours, accounting.NEIGHBOURS),
        }
        self._optimizer = None
        self._allowed = 0
        self._pass = 1
        # Steps counted for the passes that are over; the optimizer's step that the current one began with; the last one
        # it was seen to reach.
        self._counted_before, self._first, self._reached = 0, 0, 0

    @property
    def sampling(self) -> str:
        """How the batches are taken to be made."""
        return self._setting["sampling"]

    @property
    def spent(self) -> float:
        """Epsilon of all that was trained; a pass that was begun is spent."""
        return self._epsilon(self._counted(self._reached))

    @property
    def last_step(self) -> int:
        """The optimizer's `iterations` after the last step that fits, if the current pass is followed by whole ones."""
        stride = self._stride
        return self._first + (self._allowed - self._counted_before) // stride * stride

    def on_train_begin(self, logs=None):
        """Reads the optimizer; refuses a training that would pass the budget."""
        optimizer = self.model.optimizer
        if not isinstance(optimizer, dp_sgd.DPSGD):
            raise ValueError(
                "`optimizer` must be a noisy_sgd.DPSGD for a PrivacyBudget: without clipping and noise no budget is "
                f"kept. Received: optimizer of type {type(optimizer).__name__}"
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
            warnings.warn(
                "DPSGD has an explicit seed, from which its noise can be recomputed: nothing is guaranteed, and "
                "epsilon is what the same training would have with secret noise.",
                stacklevel=2,
            )
        if self._in_order:
            step = _iterations(optimizer)
            if step < self._reached:
                # Steps are taken again, in the pass that they belong to.
                self._begin_pass(step - step % self._stride)
            self._reached = step
            self._refuse_unless_a_step_fits(self._counted(step + 1))

    def on_epoch_begin(self, epoch, logs=None):
        """Under `fit`, counts a new pass."""
        if self._in_order:
            return
        # Not in on_train_begin: keras.callbacks.BackupAndRestore brings the optimizer's step back there.
        step = _iterations(self._optimizer)
        self._reached = max(self._reached, step)
        self._begin_pass(step)
        self._refuse_unless_a_step_fits(self._counted(step + 1))
        self._refuse_long_executions(epoch)

    def on_train_batch_end(self, batch, logs=None):
        """Logs epsilon, and stops where the next step would not fit."""
        self._reached = _iterations(self._optimizer)
        counted = self._counted(self._reached)
        if counted > self._allowed:
            raise RuntimeError(
                f"the training has passed its privacy budget of epsilon={self.epsilon:g}: several steps were taken at "
                f"once, past the last one that fits, {self.last_step}"
            )
        if logs is not None:
            logs["epsilon"] = self._epsilon(min(_up(counted, self._pass), self._allowed))
        if self._counted(self._reached + 1) > self._allowed:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Logs epsilon, and stops where the next pass would not fit."""
        counted = self._counted(self._reached)
        if logs is not None:
            logs["epsilon"] = self._epsilon(counted)
        if not self._in_order and counted + self._stride > self._allowed:
            self.model.stop_training = True

    def _read(self, optimizer) -> None:
        events = getattr(optimizer.event, "events", [optimizer.event])
        noises = [getattr(event, "noise_multiplier", 0.0) for event in events]
        self._setting["noise_multiplier"] = accounting.joint_noise_multiplier(*noises)
        self._setting["batch_size"] = optimizer.batch_size
        self._pass = accounting.steps_per_epoch(optimizer.batch_size, self._setting["num_examples"])
        self._allowed = calibration.steps_for(self.epsilon, **self._setting)
        self._optimizer = optimizer

    @property
    def _stride(self) -> int:
        """So many steps are counted at once."""
        return self._pass if self.sampling == "shuffled" else 1

    @property
    def _in_order(self) -> bool:
        """Whether a step's place in its pass is a function of the step, as in our own loop."""
        return "first_step" in self.params

    def _begin_pass(self, step: int) -> None:
        self._counted_before = self._counted(self._reached)
        self._first = self._reached = step

    def _counted(self, step: int) -> int:
        """The steps that count once the optimizer has reached `step`: all of a pass that was begun."""
        return self._counted_before + _up(step - self._first, self._stride)

    def _epsilon(self, counted: int) -> float:
        # Remembered by the accountant: the same number is asked for at every batch of a pass.
        return accounting.epsilon(num_steps=counted, **self._setting) if counted else 0.0

    def _refuse_unless_a_step_fits(self, counted: int) -> None:
        if counted > self._allowed:
            received = f"epsilon={self.epsilon:g}, spent={self._epsilon(self._counted(self._reached)):.4g}"
            raise ValueError(
                f"`epsilon` must be at least {self._epsilon(counted):.6g} for one more step to fit the privacy budget, "
                f"{'which begins another pass over the data' if self.sampling == 'shuffled' else 'of this noise'}; "
                f"raise the noise multiplier or the budget. Received: {received}"
            )

    def _refuse_long_executions(self, epoch: int) -> None:
        together = self.model.steps_per_execution
        if together == 1:
            return
        epochs, steps = self.params.get("epochs"), self.params.get("steps")
        planned = None if steps is None else self._counted(self._first) + (epochs - epoch) * _up(steps, self._stride)
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


def check_sampling(callbacks: Sequence[keras.callbacks.Callback], *, shuffled: bool) -> None:
    """Refuses a budget that claims Poisson sampling of batches that are known to be shuffled.

    Raises:
        ValueError: for such a budget.
    """
    for callback in callbacks:
        if shuffled and isinstance(callback, PrivacyBudget) and callback.sampling == "poisson":
            raise ValueError(
                "`sampling` must be 'shuffled' where Keras makes the batches from arrays: it passes over all examples "
                "in turn, without Poisson sampling's amplification; give `fit` a dataset of Poisson-sampled batches. "
                "Received: sampling='poisson'"
            )


def _iterations(optimizer: keras.optimizers.Optimizer) -> int:
    """The steps done; of the replicas', which all have the same, the first one's."""
    return int(optimizer.iterations.numpy())


def _up(count: int, stride: int) -> int:
    """Rounded up to a multiple."""
    return -(-count // stride) * stride
