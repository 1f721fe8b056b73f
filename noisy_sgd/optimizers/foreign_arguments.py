"""Refuses argument names of other DP-SGD libraries and names ours: Opacus, tensorflow-privacy, jax_privacy and Optax.

foreign_arguments.refuse({"max_grad_norm": 1.0})    # ValueError: ... use `l2_norm_clip` of noisy_sgd.DPSGD ...
"""

_CLIP = "use `l2_norm_clip` of noisy_sgd.DPSGD, the bound on the norm of each example's gradient"
_BATCH = "use `batch_size` of noisy_sgd.DPSGD, the nominal size of a batch, which the sum is divided by"
_MEMORY = "use `microbatch_size` of PrivateModel.compile, the number of examples at once, which bounds memory"
_ONE_BY_ONE = (
    "leave it out, because every example is clipped alone; `microbatch_size` of PrivateModel.compile bounds memory"
)
_NOISE_FOR = "use noisy_sgd.privacy.noise_multiplier_for(epsilon=...) for the noise, noisy_sgd.PrivacyBudget to stop"
_SAMPLED = "use `sampling` of noisy_sgd.privacy and noisy_sgd.PrivacyBudget, which says how batches are made"
_RATE = "use `batch_size` of noisy_sgd.DPSGD and `num_examples` of noisy_sgd.privacy, whose quotient is the rate"
_SECRET = "leave `seed` of noisy_sgd.DPSGD out: the operating system gives the key of the noise"
_ENGINE = "use `engine` of PrivateModel.compile"
_REDUCTION = "leave it out: the sum of clipped gradients is divided by `batch_size` of noisy_sgd.DPSGD"

OURS = {
    "max_grad_norm": _CLIP,
    "l2_clip_norm": _CLIP,
    "clipping_norm": _CLIP,
    "expected_batch_size": _BATCH,
    "num_microbatches": _ONE_BY_ONE,
    "max_physical_batch_size": _MEMORY,
    "target_epsilon": _NOISE_FOR,
    "target_delta": _NOISE_FOR,
    "poisson_sampling": _SAMPLED,
    "sample_rate": _RATE,
    "sampling_rate": _RATE,
    "secure_mode": _SECRET,
    "noise_seed": _SECRET,
    "noise_generator": _SECRET,
    "generator": _SECRET,
    "grad_sample_mode": _ENGINE,
    "use_xla": "use `jit_compile` of PrivateModel.compile",
    "loss_reduction": _REDUCTION,
    "dp_sum_query": "use `noise`, `adaptive_clipping` and `clipping` of noisy_sgd.DPSGD",
    "query": "use `adaptive_clipping=noisy_sgd.AdaptiveClipping(...)`",
}


def refuse(arguments: dict) -> None:
    """Refuses arguments that have another name here.

    Args:
        arguments: keyword arguments by name.

    Raises:
        ValueError: naming the first one, and our argument for it.
    """
    for name, value in arguments.items():
        if name in OURS:
            raise ValueError(f"`{name}` is another library's name: {OURS[name]}. Received: {name}={value!r}")
