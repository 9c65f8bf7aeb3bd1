"""The shape of each command's JSON: a data class with a field for each key.

The tables of `docs/json.md` are made from the docstrings (`python -m tools.docs.fields`).
"""

from dataclasses import dataclass

from hydrascope.reports.summary.backup_table import BackupRow, BackupScoreRow
from hydrascope.reports.summary.distance_rows import DistanceRow
from hydrascope.reports.summary.edge_table import EdgeRow
from hydrascope.reports.summary.faithfulness_table import Step
from hydrascope.reports.summary.feature_table import FeatureRow, FeatureShareRow
from hydrascope.reports.summary.map_table import MapCell
from hydrascope.reports.summary.path_table import PathPatchingRow
from hydrascope.reports.summary.ranking_table import EstimatorRow, RankedRow
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


@dataclass(frozen=True)
class Ranking:
    """The table of `hydrascope rank`.

    Attributes:
        readout: the readout's label.
        units: the unit of all importances.
        components: every component.
        estimators: the agreement of every estimator with what is lost; empty if none was asked for.
    """

    readout: str
    units: str
    components: tuple[RankedRow, ...]
    estimators: tuple[EstimatorRow, ...]


@dataclass(frozen=True)
class Paths:
    """The rows of `hydrascope paths`.

    Attributes:
        paths: every sender and receiver, of all readouts.
    """

    paths: tuple[PathPatchingRow, ...]


@dataclass(frozen=True)
class Circuits:
    """The rows of `hydrascope circuit`.

    Attributes:
        circuits: every circuit, from no component to all, of all readouts.
    """

    circuits: tuple[Step, ...]


@dataclass(frozen=True)
class Edges:
    """The rows of `hydrascope edges`.

    Attributes:
        edges: every edge, of all readouts.
    """

    edges: tuple[EdgeRow, ...]


@dataclass(frozen=True)
class Features:
    """The rows of `hydrascope features`.

    Attributes:
        parts: every part of the dictionary's sublayer for every ablation, of all readouts.
        features: single features for every ablation, of all readouts.
    """

    parts: tuple[FeatureShareRow, ...]
    features: tuple[FeatureRow, ...]


@dataclass(frozen=True)
class Distances:
    """The rows of `hydrascope distance`.

    Attributes:
        ablations: every ablation.
    """

    ablations: tuple[DistanceRow, ...]


@dataclass(frozen=True)
class PositionMap:
    """The cells of `hydrascope map`.

    Attributes:
        cells: every component at every token.
    """

    cells: tuple[MapCell, ...]


#: The shape of each command's JSON.
SHAPES = {
    "summary": Summary,
    "rank": Ranking,
    "backups": BackupSearch,
    "trajectory": Checkpoints,
    "paths": Paths,
    "circuit": Circuits,
    "edges": Edges,
    "features": Features,
    "distance": Distances,
    "map": PositionMap,
}
