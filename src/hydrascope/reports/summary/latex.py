"""The summary as LaTeX: tables for the package booktabs, all texts escaped."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from hydrascope.reports.summary.interval import Interval
from hydrascope.reports.summary.serialize import Row, cell_text, has_numbers
from hydrascope.reports.summary.summarise import Summary
from hydrascope.reports.summary.terminal import value_of
from hydrascope.reports.summary.verdict_text import sentences

#: What LaTeX takes for something else, and how it is written; also signs that older engines don't know.
_ESCAPED = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "²": "$^2$",
    "σ": r"$\sigma$",
    "Δ": r"$\Delta$",
    "†": r"\dag{}",
    "–": "--",
    "’": "'",
}


def as_latex(summary: Summary) -> str:
    r"""Return the verdicts as comments, and the findings and components as booktabs tables.

    >>> text = as_latex(hs.reports.summarise(results))
    >>> text.splitlines()[0]
    '% Needs \\usepackage{booktabs}.'

    Args:
        summary: the summary of a result.

    Returns:
        one `table` for the findings and one for each kind of row; numbers with their intervals.
    """
    notes = [*sentences(summary), *(f"Note: {warning}." for warning in summary.warnings)]
    comments = [f"% {' '.join(each.split())}" for each in ("Needs \\usepackage{booktabs}.", *notes)]
    return "\n".join([*comments, *_tables(summary)]) + "\n"


def _tables(summary: Summary) -> Iterator[str]:
    caption = "; ".join(f"{name}: {value}" for name, value in summary.run.items())
    if summary.findings:
        rows = [[each.name, value_of(each), each.meaning] for each in summary.findings]
        yield _table(f"Findings. {caption}", ["finding", "value", "how"], rows, "lrl")
    for rows_of_kind in (summary.components, summary.reactions, summary.pairs, summary.splits):
        if rows_of_kind:
            names = [field.name for field in fields(rows_of_kind[0]) if has_numbers(rows_of_kind, field.name)]
            names = [name for name in names if name != "kind"]
            cells = [[cell_text(row, name) for name in names] for row in rows_of_kind]
            columns = "".join("r" if _is_number(rows_of_kind[0], name) else "l" for name in names)
            yield _table(caption, names, cells, columns)


def _is_number(row: Row, name: str) -> bool:
    return isinstance(getattr(row, name), Interval)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], columns: str) -> str:
    lines = [" & ".join(map(escape, each)) + r" \\" for each in (head, *rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def escape(text: str) -> str:
    r"""Return a text as LaTeX shows it.

    >>> print(escape("neuron_5 & 50% of head.9|mlp.3"))
    neuron\_5 \& 50\% of head.9\textbar{}mlp.3
    """
    return "".join(_ESCAPED.get(letter, letter) for letter in text)
