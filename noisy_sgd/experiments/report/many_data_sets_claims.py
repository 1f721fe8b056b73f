"""Figures 3, 4 and 6 of the paper on data sets that nobody picked, as functions from the record to outcomes.

    rows = claims.judge(many_data_sets_claims.CLAIMS, results)

Tested by tests/studies/many_data_sets_test.py.
"""

from collections.abc import Callable, Mapping

import numpy as np

from noisy_sgd import records
from noisy_sgd.experiments.report import claims, paper_values
from noisy_sgd.studies import many_data_sets as study


def values(figure: int, theirs: Mapping, factor: float) -> Callable[[records.Record], claims.Outcome]:
    """On how many data sets all of a figure's values are within a factor of the paper's; reached on half of them."""

    def measure(run: records.Record) -> claims.Outcome:
        lines = [line for line in run.metrics if line["figure"] == figure]
        ours = []
        for line in lines:
            distances = [np.inf if value is None else value for value in line["squared_distance"]]
            ours.append(dict(zip(theirs, [line["gd"], *distances] if "gd" in line else distances, strict=True)))
        count = sum(paper_values.within(one, theirs, factor) for one in ours)
        medians = {name: float(np.median([one[name] for one in ours])) for name in theirs}
        here = f"{count} of {len(lines)} data sets; medians {paper_values.listed(medians)}; "
        here += f"{sum(sum(line['diverged']) for line in lines)} runs diverged"
        return claims.Outcome(here=here, reached=2 * count >= len(lines))

    return measure


def trend(step: float) -> Callable[[records.Record], claims.Outcome]:
    """On how many data sets Figure 4's gap rises with the noise; reached by the sign test."""

    def measure(run: records.Record) -> claims.Outcome:
        (found,) = (line for line in run.results["trends"] if line["relative_step"] == step)
        here = f"{found['rises']} of {found['data_sets']} data sets, p = {found['p']:.2g}; median rank correlation "
        return claims.Outcome(here=f"{here}{found['correlation']:+.2f}", reached=found["p"] < study.LEVEL)

    return measure


CLAIMS = (
    *(
        claims.of_run(
            f"Figure {figure}'s values on data sets that were not picked: within a factor of {factor} on half of them",
            f"{paper_values.listed(theirs)} on one data set",
            "many_data_sets",
            "figures",
            values(figure, theirs, factor),
        )
        for figure, theirs, factor in ((3, paper_values.FIGURE_3, 3), (6, paper_values.FIGURE_6, 10))
    ),
    *(
        claims.of_run(
            f"Figure 4 at gamma lambda_max = {step:.2g}: the gap rises with the noise (sign test over data sets, p < "
            "0.01 after Holm's adjustment for three steps)",
            "its step is 0.77: 0.0025 to 0.0097 on one data set",
            "many_data_sets",
            "figures",
            trend(step),
        )
        for step in study.GAP_STEPS
    ),
)
