"""What recorded runs on the same data cost together, from their run directories, without TensorFlow.

A DP-SGD run's run.json holds its privacy statement, and a fingerprint of the noise key of each attempt. The plan of the
run is made again from the statement and the ledger. It must cost at least what the statement says: otherwise the run
did more than the statement has numbers for. A run that has not finished counts as if it reached its planned end.

    composition.composed(["runs/pre_training", "runs/fine_tuning"]).text
    composition.plan("runs/pre_training").epsilon
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import dp_accounting

from noisy_sgd import files, records, sampling
from noisy_sgd.mechanisms import toeplitz
from noisy_sgd.privacy import accounting, ledger
from noisy_sgd.privacy import composition as compositions
from noisy_sgd.privacy import plan as plans

# The fingerprints of the noise keys in a record's privacy statement, one per attempt.
FINGERPRINTS = "noise_key_fingerprints"
# The recorded epsilon may come from another version of the accountant.
_AGREEMENT = 1e-3


def composed(directories: Sequence[str | os.PathLike], delta: float | None = None) -> compositions.Composition:
    """The cost of all runs together.

    Args:
        directories: run directories of DP-SGD runs.
        delta: of all runs together. Defaults to None, the sum of the runs' deltas.

    Raises:
        ValueError: for a run without a guarantee, whose noise key is another run's or has no fingerprint, or whose
            record does not describe its cost; and as `noisy_sgd.privacy.composed`.
    """
    found = [records.read(directory) for directory in directories]
    plans_found = [_plan(record) for record in found]
    seen: dict[str, pathlib.Path] = {}
    for record in found:
        for fingerprint in record.privacy[FINGERPRINTS]:
            if fingerprint in seen:
                raise ValueError(
                    "`runs` must have noise keys of their own: the difference of two results with one key is without "
                    f"noise. Received: {seen[fingerprint]} and {record.directory}, with the noise key {fingerprint}"
                )
            seen[fingerprint] = record.directory
    return compositions.composed(plans_found, delta)


def plan(directory: str | os.PathLike) -> plans.Plan:
    """The plan of a recorded run, with as many steps as its attempts count.

    Raises:
        ValueError: as `composed`, for this run alone.
    """
    return _plan(records.read(directory))


def _plan(record: records.Record) -> plans.Plan:
    privacy = record.privacy
    if not privacy.get("guaranteed"):
        reason = privacy.get("reason") or "its record is not that of a DP-SGD run"
        raise ValueError(
            "`runs` must each have a privacy guarantee; leave out what is never released, or train with secret noise. "
            f"Received: {record.directory}, where {reason}"
        )
    attempts = _attempts(record)
    fingerprints = privacy.get(FINGERPRINTS, [])
    if len(fingerprints) < len(attempts.attempts) or not all(fingerprints):
        raise ValueError(
            "`runs` must each hold a fingerprint of the noise key of every attempt, which shows that no two runs have "
            "the same noise; records of older versions have none, and their epsilons and deltas must be added by hand. "
            f"Received: {record.directory}, with {sum(map(bool, fingerprints))} fingerprints of "
            f"{len(attempts.attempts)} attempts"
        )
    found = _of_statement(privacy)
    found = ledger.priced(attempts, found)
    cost, stated = found.epsilon, float(privacy["epsilon"])
    if cost < stated * (1 - _AGREEMENT):
        raise ValueError(
            f"`runs` must have records that describe what the run costs; add this run's epsilon and delta by hand. "
            f"Received: {record.directory}, which states epsilon = {stated:g}, where its numbers give {cost:g}"
        )
    return found


def _attempts(record: records.Record) -> ledger.Ledger:
    """The attempts of the statement, which covers the planned end of the run, and of the ledger."""
    path = record.directory / "ledger.jsonl"
    with files.naming(path, "read"):
        written = ledger.from_text(path.read_text(encoding="utf-8"))
    stated = record.privacy["attempts"] or [[0, record.privacy["num_steps"]]]
    return ledger.furthest([written, ledger.Ledger(tuple(map(tuple, stated)))])


def _of_statement(privacy: dict[str, Any]) -> plans.Plan:
    """The plan that a statement's numbers describe, of no steps."""
    scheme = sampling.named(privacy["sampling"])
    sizes = (privacy["num_examples"], privacy["batch_size"])
    capacity = privacy["capacity"]
    noises = [privacy[name] for name in ("noise_multiplier", "count_noise_multiplier") if privacy[name] is not None]
    noise, correlation = accounting.joint_noise_multiplier(*noises), privacy.get("noise_correlation")
    independent = dp_accounting.GaussianDpEvent(noise)
    return plans.Plan(
        event=independent if correlation is None else toeplitz.CorrelatedGaussian(correlation, noise),
        sampling=scheme(*sizes) if capacity is None else sampling.CappedPoisson(*sizes, capacity=capacity),
        num_steps=0,
        delta=privacy["delta"],
        neighbors=privacy["neighbors"],
        accountant=privacy["accountant"],
        batches_known=scheme.amplifies and not privacy["amplification"],
    )
