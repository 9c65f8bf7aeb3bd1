"""The summary as LaTeX: the numbers of the other formats, in tables that LaTeX takes."""

import re

import pytest
import synthetic

from hydrascope.measures import Bootstrap
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import as_latex, as_markdown
from hydrascope.reports.summary.latex import escape

FEW = Bootstrap(resamples=40)


@pytest.mark.parametrize("ablated", [None, ["attn.1", "attn.0+mlp.1", "attn.0|mlp.2"]])
def test_the_tables_hold_what_markdown_holds(ablated: list[str] | None) -> None:
    summary = summarise(synthetic.results(3, 10, 2, **({"ablated": ablated} if ablated else {})), FEW)
    text, markdown = as_latex(summary), as_markdown(summary)
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    for row in summary.components:
        mine = next(line for line in rows if line.startswith(escape(row.ablated) + " &"))
        label = row.ablated.replace("|", r"\|")
        theirs = next(line for line in markdown.splitlines() if line.startswith(f"| {label} |"))
        cells = re.split(r" (?<!\\)\| ", theirs.strip("| ").replace(r"\|", "¦"))
        assert mine == " & ".join(escape(cell.replace("¦", "|")) for cell in cells) + r" \\"


def test_it_is_well_formed() -> None:
    text = as_latex(summarise(synthetic.results(3, 10, 2), FEW))
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") > 0
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    for found in re.finditer(r"\\begin\{tabular\}\{([lr]+)\}\n\\toprule\n(.*?)\\bottomrule", text, re.DOTALL):
        for line in found[2].splitlines():
            if line != r"\midrule":
                assert len(re.findall(r"(?<!\\)&", line)) == len(found[1]) - 1
    outside = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%#_]", outside)
    assert not set("−²σΔ†–") & set(outside)


def test_every_sign_with_a_meaning_is_escaped() -> None:
    assert escape(r"50% of a_b & {c} $1 #2 ~^\<>|") == (
        r"50\% of a\_b \& \{c\} \$1 \#2 \textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}"
        r"\textbar{}"
    )
