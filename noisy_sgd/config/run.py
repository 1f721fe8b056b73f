"""The flags of a run: its directory, its seed, its devices, its evaluations and its checkpoints.

run.Run(strategy="tpu", tpu="local").keep_checkpoints      # 3
"""

import dataclasses

from noisy_sgd.config import rules

STRATEGIES = ("default", "mirrored", "multi_worker", "tpu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run writes, its seed (initialization, data order), its devices, how often it is evaluated and saved.

    A checkpoint is written every `checkpoint_every` steps, if that is given, and whenever `checkpoint_minutes` have
    passed since the last one. The newest `keep_checkpoints` are kept, in `checkpoint_dir` (None: in `run_dir`).
    `resume` continues from the newest. `tpu` is the name or address of a Cloud TPU. `dry_run` says what would be done,
    and does nothing.
    """

    run_dir: str | None = None
    seed: int = 0
    strategy: str = "default"
    tpu: str | None = None
    logical_devices: int | None = None
    eval_every: int | None = None
    resume: bool = True
    checkpoint_dir: str | None = None
    checkpoint_every: int | None = None
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 3
    show_private_metrics: bool = False
    dry_run: bool = False

    def __post_init__(self):
        rules.require_choice("strategy", self.strategy, STRATEGIES)
        for name in ("logical_devices", "eval_every", "checkpoint_every", "keep_checkpoints"):
            rules.require_at_least(name, getattr(self, name), 1)
        minutes = self.checkpoint_minutes
        rules.require(minutes > 0, "checkpoint_minutes", "must be positive", minutes, "`inf` saves by the steps alone")
        on_tpu, strategy = self.strategy == "tpu", self.strategy
        way_out = "give its name, or `local` on a TPU machine itself"
        rules.require(self.tpu is not None or not on_tpu, "tpu", "is needed by `--strategy=tpu`", self.tpu, way_out)
        constraint, way_out = f"means nothing to `--strategy={strategy}`", "leave it out, or choose `--strategy=tpu`"
        rules.require(self.tpu is None or on_tpu, "tpu", constraint, self.tpu, way_out)
        split, one_host = self.logical_devices, strategy in ("default", "mirrored")
        rules.require(
            split is None or one_host, "logical_devices", constraint, split, "leave it out, or choose mirrored"
        )
