"""Clipped sums of per-example gradients for any Keras model: the public function, and the choice of engine.

import noisy_sgd
clipped = noisy_sgd.clipped_gradient_sum(model, loss_fn, x, y, l2_norm_clip=1.0)
optimizer.apply(clipped, model.trainable_weights)    # a noisy_sgd.DPSGD with the same bound
"""

from noisy_sgd.gradients import clipping, validation, vectorized

ENGINES = {"vectorized": vectorized.clipped_sum}
CLIPPINGS = {"flat": clipping.flat}


def engine_named(engine: str):
    """The engine's function; "auto" is the fastest that can serve the model.

    Raises:
        ValueError: for a name that is not known.
    """
    if engine == "auto":
        return ENGINES["vectorized"]
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {['auto', *ENGINES]}. Received: engine={engine!r}")
    return ENGINES[engine]


def clipping_named(name: str):
    """The function from a bound to a clip function.

    Raises:
        ValueError: for a name that is not known.
    """
    if name not in CLIPPINGS:
        raise ValueError(f"`clipping` must be one of {list(CLIPPINGS)}. Received: clipping={name!r}")
    return CLIPPINGS[name]


def clipped_gradient_sum(
    model, loss_fn, x, y, *, l2_norm_clip, mask=None, views: int = 1, clipping: str = "flat", engine: str = "auto"
):
    """The sum over a batch of every example's gradient, each clipped to an L2 norm of at most `l2_norm_clip`.

        sum_i g_i min(1, C / ||g_i||),   g_i = grad loss_i      (eq. (2) without its noise and its division by B)

    An example whose gradient is not finite contributes nothing; so does padding.

    Args:
        model: any built Keras model, functional or subclassed.
        loss_fn: loss_fn(y, y_pred) -> per-example losses [B].
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1.
        y: targets, any nest of [B, ...].
        l2_norm_clip: C, positive; infinity for no clipping.
        mask: [B] of 0 and 1, 0 for padding. Defaults to no padding.
        views: augmented views of an example; its gradient is the mean over them. Defaults to 1.
        clipping: "flat" (Abadi et al. 2016). Defaults to "flat".
        engine: "auto" or "vectorized". Defaults to "auto".

    Returns:
        A `ClippedSum` with `values` in the order of `model.trainable_weights`, `norms` [B] and `l2_sensitivity`.

    Raises:
        ValueError: for an argument out of range, or a model that mixes examples.
    """
    clip = clipping_named(clipping)(l2_norm_clip)
    compute = engine_named(engine)
    if not isinstance(views, int) or views < 1:
        raise ValueError(f"`views` must be a positive integer. Received: views={views!r}")
    validation.check_model(model)
    result = compute(model, loss_fn, x, y, clip=clip, mask=mask, views=views)
    validation.check_no_added_losses(model)
    return _clipped_sum(result, float(l2_norm_clip))


def _clipped_sum(result, l2_sensitivity: float):
    return clipping.ClippedSum(values=result.values, norms=result.norms, l2_sensitivity=l2_sensitivity)
