"""The rows of a search for backups, as numbers with confidence intervals and as tables."""

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr
from rich.console import Group
from rich.text import Text

from hydrascope.measures import Bootstrap, backup_scores, backups, select_readout
from hydrascope.measures.backups import FEWEST
from hydrascope.reports.summary.interval import (
    Interval,
    digits_for,
    format_interval,
    format_significant,
    number,
    percent,
)
from hydrascope.reports.summary.table import numbers_table
from hydrascope.utils.text import counted

_NUMBERS = ("single", "conditional", "coupling", "atp", "atp_two_state")
#: The most candidates of a seed set that a terminal shows.
SHOWN = 10


@dataclass(frozen=True)
class BackupRow:
    """One candidate for one seed set, means over prompts.

    Attributes:
        readout: the readout's label.
        seed: the components that are ablated.
        candidate: the candidate's label.
        downstream: whether it is downstream of the seed set; if not, it can't react.
        is_backup: whether its reaction is surely above 0, and at least 5% of what the seed set removes.
        kind: of a backup, `brake`, `substitute` or `unclear`; else empty.
        removed: what the seed set removes, in the readout's unit.
        clean: what the candidate contributes in the clean pass, with bounds for all candidates at once.
        reaction: what its reaction brings, with bounds for all candidates at once.
        synergy: how much more it costs to ablate both than each, with bounds for all candidates at once.
        coax: `conditional` − `single`.
        single, conditional, coupling: energies, in logits².
        atp, atp_two_state: estimates by gradients; NaN where there are none.
    """

    readout: str
    seed: str
    candidate: str
    downstream: bool
    is_backup: bool
    kind: str
    removed: Interval
    clean: Interval
    reaction: Interval
    synergy: Interval
    coax: float
    single: float
    conditional: float
    coupling: float
    atp: float
    atp_two_state: float


@dataclass(frozen=True)
class BackupScoreRow:
    """The agreement of one score with one truth, over the candidates of one seed set.

    Attributes:
        readout: the readout's label.
        seed: the components that are ablated.
        among: `all` candidates, or those `downstream`.
        truth: `reaction` or `synergy`.
        score: the name of the score.
        spearman: the rank correlation with the truth.
        auc, average_precision: how well it tells those whose truth is sure; NaN where a class has fewer than three.
        candidates, positives: the number of candidates, and of those whose truth is sure.
    """

    readout: str
    seed: str
    among: str
    truth: str
    score: str
    spearman: Interval
    auc: Interval
    average_precision: Interval
    candidates: int
    positives: int


def backup_rows(
    found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None
) -> tuple[BackupRow, ...]:
    """Return the candidates of each seed set on one readout, the largest |reaction| first.

    A candidate that overlaps with the seed set is left out.

    Args:
        found: the result of `hydrascope.analyses.backups`.
        readout: the readout's label; by default the first.
        bootstrap: the resampling that gives the bounds.

    Raises:
        HydrascopeError: there is no such readout.
    """
    chosen, truths = select_readout(found, readout), backups(found, readout, bootstrap)
    mean = chosen.mean("prompt")
    rows = []
    for place, seed in enumerate(map(str, found["seed"].values)):
        here, at = mean.isel(seed=place), truths.isel(seed=place)
        each = []
        for column, candidate in enumerate(map(str, found["candidate"].values)):
            one, sure = here.isel(candidate=column), at.isel(candidate=column)
            if one["conditional"].isnull():
                continue
            number_of = {name: float(one[name]) if name in one else float("nan") for name in _NUMBERS}
            each.append(
                BackupRow(
                    readout=str(chosen["readout"].values),
                    seed=seed,
                    candidate=candidate,
                    downstream=bool(sure["downstream"]),
                    is_backup=bool(sure["is_backup"]),
                    kind=str(sure["kind"].values),
                    removed=Interval.of(sure["removed"]),
                    clean=Interval.of(sure["unembed"]),
                    reaction=Interval.of(sure["reaction"]),
                    synergy=Interval.of(sure["synergy"]),
                    coax=number_of["conditional"] - number_of["single"],
                    **number_of,
                )
            )
        rows += sorted(each, key=lambda row: -abs(row.reaction.estimate))
    return tuple(rows)


def backup_score_rows(
    found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None
) -> tuple[BackupScoreRow, ...]:
    """Return a row for each seed set, truth, choice of candidates and score.

    The arguments are those of `backup_rows`.

    Raises:
        HydrascopeError: there is no such readout.
    """
    label, scores = str(select_readout(found, readout)["readout"].values), backup_scores(found, readout, bootstrap)
    rows = []
    for seed in scores["seed"].values:
        for truth in scores["truth"].values:
            for among in scores["among"].values:
                some = scores.sel(seed=seed, truth=truth, among=among)
                for score in scores["score"].values:
                    one = some.sel(score=score)
                    row = BackupScoreRow(
                        readout=label,
                        seed=str(seed),
                        among=str(among),
                        truth=str(truth),
                        score=str(score),
                        spearman=Interval.of(one["spearman"]),
                        auc=Interval.of(one["auc"]),
                        average_precision=Interval.of(one["average_precision"]),
                        candidates=int(some["candidates"]),
                        positives=int(some["positives"]),
                    )
                    rows.append(row)
    return tuple(rows)


def backups_in_text(
    found: xr.Dataset,
    rows: Sequence[BackupRow],
    scores: Sequence[BackupScoreRow],
    bootstrap: Bootstrap | None = None,
) -> Group:
    """Return tables of one readout for a terminal: the largest reactions, and the scores."""
    bootstrap = bootstrap or Bootstrap()
    parts: list[object] = []
    for seed in map(str, found["seed"].values):
        of_seed = [row for row in rows if row.seed == seed]
        if of_seed:
            parts += [_candidates(seed, of_seed), Text(""), _scores(seed, scores), Text("")]
    parts.append(Text(_notes(found, rows, bootstrap), style="dim"))
    return Group(*parts)  # type: ignore[arg-type]


def _candidates(seed: str, rows: Sequence[BackupRow]) -> object:
    """Return the table of the candidates with the largest reactions to one seed set."""
    reacting = [row for row in rows if row.downstream]
    backed = sum(row.is_backup for row in rows)
    digits = digits_for(value for row in rows for value in (row.single, row.conditional))
    return numbers_table(
        f"{seed} ablated removes {format_significant(rows[0].removed)}: {counted(backed, 'backup', 'backups')} among "
        f"{len(reacting):,} downstream of {counted(len(rows), 'candidate', 'candidates')}",
        ("candidate", "backup"),
        ("clean", "reaction", "synergy", "single", "conditional"),
        (
            [
                row.candidate,
                row.kind,
                number(row.clean.estimate, 2),
                format_significant(row.reaction),
                number(row.synergy.estimate, 2),
                *(number(value, digits) for value in (row.single, row.conditional)),
            ]
            for row in reacting[:SHOWN]
        ),
    )


def _scores(seed: str, rows: Sequence[BackupScoreRow]) -> object:
    """Return the table of the scores of one seed set."""
    of = {(row.score, row.truth, row.among): row for row in rows if row.seed == seed}

    def cells(score: str, truth: str) -> list[str]:
        reached, every = (of[score, truth, among].spearman for among in ("downstream", "all"))
        return [format_interval(reached, 2), number(every.estimate, 2)]

    return numbers_table(
        "Scores against the truth: Spearman among downstream and among all; AUC and average precision",
        ("score",),
        ("reaction", "all", "synergy", "all", "AUC", "AP"),
        (
            [
                score,
                *cells(score, "reaction"),
                *cells(score, "synergy"),
                *(number(value.estimate, 2) for value in (row.auc, row.average_precision)),
            ]
            for (score, truth, among), row in of.items()
            if (truth, among) == ("reaction", "downstream")
        ),
    )


def _notes(found: xr.Dataset, rows: Sequence[BackupRow], bootstrap: Bootstrap) -> str:
    """Return the notes below the tables."""
    chosen_on = int(found.attrs.get("chosen_on", 0))
    chosen = f" Sets of top.N were chosen on {chosen_on:,} other prompts." if chosen_on else ""
    nothing = list(dict.fromkeys(row.seed for row in rows if not row.removed.low > 0))
    none = f" What {', '.join(nothing)} removes may be 0: then no reaction repairs." if nothing else ""
    unit, readout = found.attrs.get("units", "logits"), rows[0].readout if rows else ""
    return (
        f"Effects in {unit} of {readout}, energies in logits², means over {found.sizes['prompt']:,} prompts. Clean: "
        "the contribution in the clean pass. Reaction: what is lost again if the candidate is frozen at its clean "
        "value. Synergy: what both ablated cost more than each alone. A backup: its reaction is surely above 0 and at "
        "least 5% of what is removed; a brake surely writes against the readout in the clean pass, a substitute for "
        "it. AUC "
        f"and AP, for backups among downstream candidates; a dash: fewer than {FEWEST} of a class can't tell. "
        f"Intervals: bootstrap over prompts, {percent(bootstrap.confidence)}, of reactions for all candidates at once."
        f"{chosen}{none} The {SHOWN} largest reactions are shown; all: --format csv; scores with intervals: --format "
        "json."
    )
