"""Lower bounds on epsilon from attacks: what a run leaks at least, to compare with what its accountant allows at most.

A bound above the claimed epsilon proves that the claim is wrong. A bound below it proves nothing: another attack may
find more.

one_run       many canaries in one training run, each included by a coin (Steinke, Nasr and Jagielski 2023)
many_runs     one example in many runs of a tiny model, with Clopper-Pearson limits
membership    attacks on the membership of examples: loss threshold and likelihood ratio, AUC and TPR at a low FPR
"""

from noisy_sgd.privacy.auditing import many_runs, membership, one_run

__all__ = ["many_runs", "membership", "one_run"]
