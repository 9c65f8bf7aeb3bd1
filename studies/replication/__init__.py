"""Replication of McGrath et al. 2023 on two small language models."""

from studies.replication.figure import draw
from studies.replication.numbers import condense
from studies.replication.page import claim, render
from studies.replication.runs import measure
from studies.replication.verdict import primary

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
