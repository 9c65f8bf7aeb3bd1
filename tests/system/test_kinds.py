"""Every kind of component has its place in the tables that list kinds."""

from typing import get_args

from hydrascope.components.component import INPUT_KINDS, SUBLAYER_KINDS, SUBLAYER_OF, Kind
from hydrascope.measures import labels
from hydrascope.reports.figures import comparison, figures_1_3
from hydrascope.reports.summary import findings, verdict, verdict_text

#: The kinds that can be ablated and read; several together are `joint`.
ABLATED = {*SUBLAYER_KINDS, *SUBLAYER_OF}


def test_kinds_are_the_same_everywhere() -> None:
    assert set(get_args(Kind)) == ABLATED | set(INPUT_KINDS)
    assert set(get_args(labels.ComponentKind)) == ABLATED | {"joint"} == set(findings.PLURAL)
    assert set(labels._GROUPS) == {"sublayer", *get_args(Kind), "joint", "logits"} - {"attn", "mlp"}
    for kinds in (verdict.ASKED, verdict_text.ASKED_NAME, comparison._TITLES, figures_1_3._PREFERRED):
        assert set(kinds) == ABLATED
