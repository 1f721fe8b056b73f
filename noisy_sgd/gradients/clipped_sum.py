"""Clipped sums of per-example gradients for any Keras model: the public function, and the choice of engine.

import noisy_sgd
clipped = noisy_sgd.clipped_gradient_sum(model, loss_fn, x, y, l2_norm_clip=1.0)
optimizer.apply(clipped, model.trainable_weights)    # a noisy_sgd.DPSGD with the same bound
"""

import dataclasses
import weakref

import keras
import tensorflow as tf
from absl import logging

from noisy_sgd import keras_internals
from noisy_sgd.gradients import arguments, automatic_rule, layer_rules, trials
from noisy_sgd.gradients import clipping as clip_functions
from noisy_sgd.gradients.engines import book_keeping, vectorized

_FELL_BACK: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()


def _fastest(model, *batch, **keywords):
    """Book-keeping where every layer has a rule, else the reference engine."""
    try:
        return book_keeping.clipped_sum(model, *batch, **keywords)
    except layer_rules.NoRuleError as error:
        _warn(model, str(error))
        return vectorized.clipped_sum(model, *batch, **keywords)


def _warn(model, reason: str) -> None:
    if model in _FELL_BACK:
        return
    _FELL_BACK.add(model)
    layers = keras_internals.layers(model)
    parts = {id(part) for layer in layers for part in layer_rules.parts(layer)}
    without = [layer for layer in layers if id(layer) not in parts and _has_no_rule(layer)]
    names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in without)
    logging.warning(
        "Falling back to the slower vectorized engine: %s%s",
        reason,
        f". All layers without a rule: {names}" if len(without) > 1 else "",
    )


def _has_no_rule(layer) -> bool:
    if not any(weight.trainable for weight in layer_rules.weights(layer)):
        return False
    try:
        layer_rules.rule_for(layer, automatic_rule.RULE)
    except layer_rules.NoRuleError:
        return True
    return False


ENGINES = {"auto": _fastest, "book_keeping": book_keeping.clipped_sum, "vectorized": vectorized.clipped_sum}


def engine_named(engine: str):
    """The engine's function; "auto" is the fastest that can serve the model.

    Raises:
        ValueError: for a name that is not known.
    """
    if not isinstance(engine, str) or engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {list(ENGINES)}. Received: engine={engine!r}")
    return ENGINES[engine]


def check_model(model: keras.Model, engine: str, *, clipped: bool) -> None:
    """Refuses a model that cannot be trained, before its step is traced.

    The engines try a model as well, but during the trace. The memory that a trial frees there lies between blocks that
    stay in use, so it is not given back.

    Args:
        model: a functional Keras model.
        engine: one of `ENGINES`.
        clipped: whether its gradients are to be clipped per example; others are not tried.

    Raises:
        ValueError: for a model that `trials.check` refuses.
    """
    trials.check(model, clipped=clipped, by_rules=engine != "vectorized")


def clipped_gradient_sum(
    model,
    loss_fn,
    x,
    y,
    *,
    l2_norm_clip,
    mask=None,
    views: int = 1,
    clipping="flat",
    engine: str = "auto",
    with_remainder: bool = False,
    coordinates=None,
):
    """The sum over a batch of every example's gradient, each clipped to an L2 norm of at most `l2_norm_clip`.

        sum_i g_i min(1, C / ||g_i||),   g_i = grad loss_i      (eq. (2) without its noise and its division by B)

    An example whose gradient is not finite contributes nothing; so does padding.

    Args:
        model: any built Keras model, functional or subclassed.
        loss_fn: loss_fn(y, y_pred) -> per-example losses [B].
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1. Sparse tensors are made dense.
        y: targets, any nest of [B, ...].
        l2_norm_clip: C, positive; infinity for no clipping (with "flat" only). Where a `noisy_sgd.DPSGD` learns the
            bound, its `current_l2_norm_clip`.
        mask: [B] of 0 and 1, 0 for padding. Defaults to no padding.
        views: augmented views of an example; its gradient is the mean over them. Defaults to 1.
        clipping: "flat", as above (Abadi et al. 2016); "automatic", g_i * C / (||g_i|| + 0.01) (AUTO-S of Bu et al.
            2023); "normalized", g_i * C / ||g_i||; "per_layer", each layer's part clipped to C / sqrt(number of
            layers); or a list of the layers' own bounds, whose squares sum to C^2 (see `noisy_sgd.gradients.clipping`).
            Defaults to "flat".
        engine: "book_keeping", one backward pass for models whose layers have rules (`layer_rules`); "vectorized", for
            any model (one example after the other where TensorFlow cannot vectorize it rightly, see
            `noisy_sgd.gradients.engines.example_map`); "auto", the first that can serve the model, which logs why where
            it is the second. Defaults to "auto".
        with_remainder: whether to sum what clipping takes away as well, as `noisy_sgd.DiceSGD` needs it. Defaults to
            False.
        coordinates: coordinates(weights) -> one tensor of 0 and 1 per weight, by which each example's gradient is
            multiplied before it is clipped, such as `noisy_sgd.DPSparseSGD.coordinates`. Defaults to None, all
            coordinates.

    Returns:
        A `ClippedSum` with `values` in the order of `model.trainable_weights`, `norms` [B], `l2_sensitivity`,
        `present` and `remainder`.

    Raises:
        ValueError: for an argument out of range, or a model that mixes examples.
    """
    arguments.check_model_and_loss(model, loss_fn)
    clip = clip_functions.clip_function(clipping, l2_norm_clip)
    clip = dataclasses.replace(clip, with_remainder=with_remainder, coordinates=coordinates)
    compute = engine_named(engine)
    views = arguments.views(views)
    x, y = arguments.dense("x", x), arguments.dense("y", y)
    arguments.check_batch(x, y, mask, views)
    x = arguments.of_known_sizes(x, model, views)
    one_view = x if views == 1 else tf.nest.map_structure(lambda t: t[:, 0], x)
    trials.check(model, one_view)
    loss_fn = trials.checked_loss(loss_fn)
    result = compute(model, loss_fn, x, y, clip=clip, mask=mask, views=views)
    trials.check_no_added_losses(model)
    return clip_functions.ClippedSum(
        values=result.values,
        norms=result.norms,
        l2_sensitivity=clip.l2_sensitivity,
        present=None if mask is None else tf.cast(mask, tf.bool),
        remainder=result.remainder,
    )
