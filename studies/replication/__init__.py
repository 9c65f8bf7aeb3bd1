"""Replication of McGrath et al. 2023 on two small language models."""

from studies.replication.figure import draw
from studies.replication.numbers import condense
from studies.replication.page import claim, render
from studies.replication.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "render"]
