"""Claims that a study has judged itself: a row of the report from a row of `studies.verdicts`.

    claim = judged_rows.claim("...", "Smith et al. 2020", "noise_benefit", "images", "equal_steps")

Tested by tests/experiments/report/judged_rows_test.py.
"""

from noisy_sgd import records
from noisy_sgd.experiments.report import claims
from noisy_sgd.studies import verdicts


def claim(text: str, source: str, experiment: str, name: str, row: str) -> claims.Claim:
    """A claim that is reached where the study's row is confirmed.

    Args:
        text: the claim.
        source: where it is made.
        experiment: the experiment's name.
        name: of the folder of the run that decides the claim.
        row: of the run's results.
    """

    def measure(run: records.Record) -> claims.Outcome | None:
        judged = next((one for one in run.results["rows"] if one["row"] == row), None)
        if judged is None:
            return None
        parts = "; ".join(_text(part) for part in judged["parts"])
        claimed = f"above 0 as claimed; p = {judged['p_value']:.2g} after Holm; {run.config['dataset']}"
        here = f"{judged['verdict']}: {parts} ({claimed})"
        return claims.Outcome(here=here, reached=judged["verdict"] == verdicts.CONFIRMED)

    return claims.of_run(text, source, experiment, name, measure)


def _text(part):
    if part["low"] is None:
        return f"{part['part']} not measured on enough seeds"
    return f"{part['part']} {part['mean']:.3g} [{part['low']:.3g}, {part['high']:.3g}], {part['seeds']} seeds"
