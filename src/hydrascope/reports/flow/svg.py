"""The repair flow as SVG: light, dark, or as the page is."""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from hydrascope.reports.flow.colours import DARK, INK, LIGHT, LOOKS, STRIPES, Look
from hydrascope.reports.flow.geometry import BOLD
from hydrascope.reports.flow.shapes import Picture, Shape, Text

Colours = Literal["light", "dark", "auto"]

_FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Liberation Sans',Arial,sans-serif"


def as_svg(picture: Picture, colours: Colours = "auto", about: Mapping[str, str] | None = None) -> str:
    """Return a picture as one SVG element, with a title, a description and its own styles.

    Styles stand in one `style` element and no attribute, so that a page's security policy can name them.

    All texts are escaped; it holds no script and asks for nothing. Colours are CSS variables (`--hs-paper`), so that a
    page may set its own.

        >>> picture = hs.reports.flow.lay_out(hs.reports.flow.repair_flow(results, "attn.3"))
        >>> hs.reports.flow.as_svg(picture, "light").startswith("<svg")
        True

    Args:
        picture: the geometry.
        colours: `light`, `dark`, or `auto`: as the reader's system is.
        about: what the picture is of, by name; kept as metadata.
    """
    svg, style = svg_and_style(picture, colours, about)
    return svg.replace("<defs>", f"<style>{style}</style><defs>", 1)


def svg_and_style(
    picture: Picture, colours: Colours = "auto", about: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Return a picture as an SVG element without styles, and its style sheet.

    A page adopts the sheet if its security policy allows no `style` element that it can't name beforehand.

    >>> picture = hs.reports.flow.lay_out(hs.reports.flow.repair_flow(results, "attn.3"))
    >>> svg, style = svg_and_style(picture)

    Args:
        picture: as of `as_svg`, as are `colours` and `about`.
        colours: as above.
        about: as above.
    """
    drawn = f"{picture}{about}".encode(errors="replace")
    mark = f"hs{sha256(drawn).hexdigest()[:10]}"
    body = [*_shapes(picture, mark), *map(_text, picture.all_texts)]
    height = picture.bottom - picture.top
    box = f"0 {_number(picture.top)} {_number(picture.width)} {_number(height)}"
    kept = escape(_clean(json.dumps(dict(about), ensure_ascii=False))) if about else ""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{_number(picture.width)}" '
        f'height="{_number(height)}" class="hs-flow {mark}" role="img" aria-labelledby="{mark}-t {mark}-d">'
        f'<title id="{mark}-t">{escape(_clean(picture.title))}</title>'
        f'<desc id="{mark}-d">{escape(_clean(picture.description))}</desc>'
        f"{f'<metadata>{kept}</metadata>' if kept else ''}"
        f"<defs>{_patterns(picture, mark)}</defs>"
        f'<rect class="paper" y="{_number(picture.top)}" width="{_number(picture.width)}" height="{_number(height)}"/>'
        f"{''.join(body)}</svg>\n"
    )
    return svg, _style(picture, mark, colours)


def _style(picture: Picture, mark: str, colours: Colours) -> str:
    """Return the style sheet; its variables stand in `:where`, so that a page's own win."""

    def variables(values: Mapping[str, str]) -> str:
        return ";".join(f"--hs-{name}:{value}" for name, value in values.items())

    rules = [f":where(.{mark}){{{variables(DARK if colours == 'dark' else LIGHT)}}}"]
    if colours == "auto":
        rules.append(f"@media screen and (prefers-color-scheme:dark){{:where(.{mark}){{{variables(DARK)}}}}}")
    rules.append(f".{mark}{{font-family:{_FONTS};max-width:100%;height:auto}}.{mark} .paper{{fill:var(--hs-paper)}}")
    for role in dict.fromkeys(shape.role for shape in picture.shapes):
        rules.append(f".{mark} .{_class(role)}{{{_look(LOOKS[role], picture, mark)}}}")
    rules += [f".{mark} .t-{_class(role)}{{fill:var(--hs-{ink})}}" for role, ink in INK.items()]
    rules.append(",".join(f".{mark} .t-{_class(role)}" for role in BOLD) + "{font-weight:650}")
    return "".join(rules)


def _look(look: Look, picture: Picture, mark: str) -> str:
    fill = f"url(#{mark}-s{round(100 * look.stripes)})" if look.stripes else f"var(--hs-{look.fill})"
    rules = [f"fill:{fill if look.fill else 'none'}"]
    if look.stroke:
        width = look.width * picture.stroke
        rules.append(f"stroke:var(--hs-{look.stroke});stroke-width:{_number(width)};stroke-linejoin:round")
    if look.dash:
        rules.append(f"stroke-dasharray:{' '.join(map(_number, look.dash))}")
    return ";".join(rules)


def _patterns(picture: Picture, mark: str) -> str:
    """Return the stripes that the picture has."""
    shares = dict.fromkeys(LOOKS[shape.role].stripes for shape in picture.shapes if LOOKS[shape.role].stripes)
    size = STRIPES * picture.stroke
    return "".join(
        f'<pattern id="{mark}-s{round(100 * share)}" width="{_number(size)}" height="{_number(size)}" '
        f'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="{_number(size)}" '
        f'height="{_number(size)}" fill="var(--hs-paper)"/><rect width="{_number(size * share)}" '
        f'height="{_number(size)}" fill="var(--hs-fix)"/></pattern>'
        for share in shares
    )


def _shapes(picture: Picture, mark: str) -> Iterator[str]:
    for place, shape in enumerate(picture.shapes):
        named = f" data-component={quoteattr(_clean(shape.component))}" if shape.component else ""
        path = f'd="{_path(shape)}"'
        inside = f"<title>{escape(_clean(shape.about))}</title>" if shape.about else ""
        if shape.fade is None:
            yield f'<path {path} class="{_class(shape.role)}"{named}>{inside}</path>'
            continue
        yield f'<path {path} class="{_class(shape.role)}"{named}/>'
        x1, y1, x2, y2 = (_number(each) for point in shape.fade for each in point)
        ends = f'gradientUnits="userSpaceOnUse" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
        for letter, colour in (("f", "gap"), ("e", "edge")):
            stops = "".join(
                f'<stop offset="{offset}" stop-color="var(--hs-{colour})" stop-opacity="{opacity}"/>'
                for offset, opacity in ((0.05, 1), (0.75, 0))
            )
            yield f'<linearGradient id="{mark}-{letter}{place}" {ends}>{stops}</linearGradient>'
        ends = f'fill="url(#{mark}-f{place})" stroke="url(#{mark}-e{place})"'
        yield f'<path {path} {ends} stroke-width="{_number(2 * picture.stroke)}"{named}>{inside}</path>'


def _path(shape: Shape) -> str:
    return "".join(f"{step[0]}{' '.join(map(_number, step[1:]))}" for step in shape.steps)


def _text(text: Text) -> str:
    parts = "".join(
        f'<tspan class="t-{_class(role)}">{escape(_clean(words))}</tspan>' for words, role in text.parts if words
    )
    anchor = "" if text.anchor == "start" else f' text-anchor="{text.anchor}"'
    place = f'x="{_number(text.x)}" y="{_number(text.y)}" font-size="{_number(text.size)}"'
    return f'<text {place}{anchor} xml:space="preserve">{parts}</text>'


def _class(role: str) -> str:
    return role.replace(" ", "-").replace("_", "-")


def _number(value: float) -> str:
    """Return a coordinate with at most two decimals."""
    return f"{round(value, 2) + 0.0:g}" if abs(value) < 1e4 else f"{value:.1f}"


def _clean(text: str) -> str:
    """Return a text without characters that XML can't hold."""
    return "".join(
        char
        if char in "\t\n" or (char >= " " and not 0xD800 <= ord(char) <= 0xDFFF and char not in "\ufffe\uffff")
        else "�"
        for char in text
    )
