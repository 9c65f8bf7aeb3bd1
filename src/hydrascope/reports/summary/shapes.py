"""The shape of each command's JSON: a data class with a field for each key.

The tables of `docs/json.md` are made from the docstrings (`python -m tools.docs.fields`).
"""

from dataclasses import dataclass

from hydrascope.reports.summary.backup_table import BackupRow, BackupScoreRow
from hydrascope.reports.summary.summarise import Summary
from hydrascope.reports.summary.trajectory_table import KindRow, TrajectoryRow


@dataclass(frozen=True)
class BackupSearch:
    """The candidates and scores of `hydrascope backups`.

    Attributes:
        candidates: every candidate for every seed set, of all readouts.
        scores: the agreement of every score with the truths, of all readouts.
    """

    candidates: tuple[BackupRow, ...]
    scores: tuple[BackupScoreRow, ...]


@dataclass(frozen=True)
class Checkpoints:
    """The rows of `hydrascope trajectory`.

    Attributes:
        target: the token that is read, in words.
        kinds: the sublayers of each kind in each checkpoint, of all readouts.
        components: every ablated component in each checkpoint, of all readouts.
    """

    target: str
    kinds: tuple[KindRow, ...]
    components: tuple[TrajectoryRow, ...]


#: The shape of each command's JSON.
SHAPES = {"summary": Summary, "backups": BackupSearch, "trajectory": Checkpoints}
