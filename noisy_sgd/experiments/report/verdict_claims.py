"""Claims whose verdict the study computed: a row of the record's results becomes a row of the report.

    CLAIMS = (verdict_claims.of_row("Noise beats clipping (rule)", "Watson et al. 2023", "name", "mnist", "row"),)

A claim is reached if the study's verdict is "confirmed". Otherwise the text says whether it is refuted or undecided.

Tested by tests/experiments/report/verdict_claims_test.py.
"""

from noisy_sgd import records
from noisy_sgd.experiments.report import claims
from noisy_sgd.studies import verdicts


def of_row(text: str, paper: str, experiment: str, name: str, row: str) -> claims.Claim:
    """A claim that one row of one run decides.

    Args:
        text: the claim, and the rule by which it counts as reached.
        paper: the source's own value and setting.
        experiment: the folder of the runs.
        name: of the run that decides.
        row: the row's name in the results' `rows`.
    """

    def measure(run: records.Record) -> claims.Outcome | None:
        found = next((one for one in run.results["rows"] if one["row"] == row), None)
        if found is None or min(part["seeds"] for part in found["parts"]) < 2:
            return None
        return claims.Outcome(here=_here(found), reached=found["verdict"] == verdicts.CONFIRMED)

    return claims.of_run(text, paper, experiment, name, measure)


def _here(row) -> str:
    parts = "; ".join(_part(part) for part in row["parts"])
    seeds = row["parts"][0]["seeds"]
    return f"{row['verdict']}: {parts} ({seeds} seeds, p = {row['p_value']:.2g} after Holm)"


def _part(part) -> str:
    if None in (part["mean"], part["low"], part["high"]):
        return f"{part['part']}: a run diverged"
    return f"{part['part']}: {part['mean']:+.2f} [{part['low']:+.2f}, {part['high']:+.2f}]"
