"""Every kind of component has its place in the tables that list kinds."""

from typing import get_args

from hydrascope.components.component import INPUT_KINDS, SUBLAYER_KINDS, SUBLAYER_OF, TERM_KINDS, Kind
from hydrascope.measures import labels
from hydrascope.reports.figures import comparison, figures_1_3
from hydrascope.reports.summary import findings, verdict, verdict_text

#: The kinds that can be ablated and read; several together are `joint`.
ABLATED = {*SUBLAYER_KINDS, *SUBLAYER_OF}


def test_kinds_are_the_same_everywhere() -> None:
    # The residual stream is no component, but the home of the terms of its dictionary.
    assert set(get_args(Kind)) == ABLATED | {*INPUT_KINDS, *TERM_KINDS, "stream"}
    assert set(get_args(labels.ComponentKind)) == ABLATED | {*TERM_KINDS, "joint"} == set(findings.PLURAL)
    assert set(labels._GROUPS) == {"sublayer", *get_args(Kind), "joint", "logits"} - {"attn", "mlp", "stream"}
    for kinds in (verdict.ASKED, verdict_text.ASKED_NAME, comparison._TITLES, figures_1_3._PREFERRED):
        # Verdicts are for what there are several of: an error and a bias are one for each dictionary.
        assert set(kinds) == ABLATED | {"feature"}
