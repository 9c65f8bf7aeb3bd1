"""One file, in which no text is markup, nothing runs but the page's own script, and which stays small."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import synthetic
from opened import FEW, HOSTILE, with_prompts
from typer.testing import CliRunner

import hydrascope as hs
from hydrascope.cli.app import app
from hydrascope.measures import Bootstrap
from hydrascope.reports.html import render
from hydrascope.utils.errors import HydrascopeError


class Elements(HTMLParser):
    """The elements of a page: what each is called, its attributes, and the text in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict, str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), ""))

        self.inside = True

    def handle_data(self, data):
        if self.inside:
            tag, attributes, text = self.found.pop()
            self.found.append((tag, attributes, text + data))

    def handle_endtag(self, tag):
        self.inside = False

    def texts(self, tag, **attributes):
        return [text for name, has, text in self.found if name == tag and attributes.items() <= has.items()]


@pytest.fixture(scope="module")
def written(tmp_path_factory, results):
    results = with_prompts(results, HOSTILE).assign_attrs(model="</title><script>alert(1)</script>")
    return hs.report(results, tmp_path_factory.mktemp("page") / "a.html", bootstrap=FEW).read_text()


def test_only_its_own_script_and_style_may_run(written):
    elements = Elements(written)
    policy = next(has["content"] for tag, has, _ in elements.found if has.get("http-equiv"))
    for tag, kind in (("script", {"type": "module"}), ("style", {})):
        texts = elements.texts(tag, **kind)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        assert f"{tag}-src {' '.join(f'{chr(39)}sha256-{digest}{chr(39)}' for digest in hashes)};" in policy
    # Those of the page, of the wide picture and of the narrow one.
    assert len(elements.texts("style")) == 3
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    no_icon = {"rel": "icon", "href": "data:,"}  # so that none is asked for
    assert not any(
        name in has
        for _, has, _ in elements.found
        if has != no_icon
        for name in ("src", "href", "style", "onclick", "onerror")
    )


def test_hostile_texts_are_only_ever_data(written, results, tmp_path):
    elements = Elements(written)
    (page,) = elements.texts("script", id="page")
    prompts = json.loads(page)["prompts"]
    assert [each["text"] for each in prompts[: len(HOSTILE)]] == list(HOSTILE)
    tame = with_prompts(results, [f"prompt {number}" for number in range(len(HOSTILE))])
    other = Elements(hs.report(tame, tmp_path / "a.html", bootstrap=FEW).read_text())
    assert [tag for tag, _, _ in elements.found] == [tag for tag, _, _ in other.found]
    # Of a path the last part is shown.
    assert elements.texts("title")[0] == "script> · hydrascope"
    assert written.isascii() or not any(char in written for char in "\u2028\u2029\u202e\x00")


def test_what_is_no_number_is_null():
    assert render.as_json({"a": [float("nan"), float("-inf"), 1.5, (None, "<é>")]}) == (
        r'{"a":[null,null,1.5,[null,"\u003c\u00e9\u003e"]]}'
    )


def test_script_and_style_are_small():
    # Of some 144 kB, half are the scripts of a report's views, a quarter the explorer's, 28 kB style and template.
    own = [path for path in Path(render.__file__).parent.rglob("*") if path.suffix in (".js", ".css", ".html")]
    assert sorted(path.stem for path in own if path.suffix == ".js") == sorted(render.MODULES)
    assert sum(path.stat().st_size for path in own) < 147_000


def test_modules_import_what_others_export_and_share_no_name():
    """They are joined into one script: what one calls by a name, no other may."""
    own, names = {}, []
    for module in render.MODULES:
        text = (Path(render.__file__).parent / "static" / "script" / f"{module}.js").read_text()
        declared = re.findall(r"^(export )?(?:async )?(?:function\*?|const|let|class) ([\w$]+)", text, re.MULTILINE)
        own[module] = text, {name for exported, name in declared if exported}
        names += [name for _, name in declared]
    assert sorted(names) == sorted(set(names))
    for module, (text, _) in own.items():
        imported = {}
        for wanted, source in re.findall(r"^import \{([^}]*)\} from \"./(\w+).js\";$", text, re.MULTILINE):
            imported[source] = {name.strip() for name in wanted.split(",")}
        for source, wanted in imported.items():
            assert wanted <= own[source][1], (module, source)
            unused = [name for name in wanted if len(re.findall(rf"(?<![\w$.]){re.escape(name)}(?![\w$])", text)) < 2]
            assert unused == [], module
    assert "import " not in re.sub(r"//.*", "", render.joined_script())
    assert "export " not in render.joined_script()


@pytest.mark.slow
def test_a_large_report_is_small(tmp_path):
    results = synthetic.results(32, 1209, 1, by_patch=False).isel(patch=[0] * 15)
    assert results.sizes["ablated"] == results.sizes["component"] == 64
    patches = np.zeros((1, 1209, 64, 15, 64), np.float32)
    patches[:, :50] = np.random.default_rng(0).normal(size=(50, 64, 15, 64))
    dims = ("readout", "prompt", "ablated", "patch", "component")
    results = results.assign(unembed_ablated_by_patch=(dims, patches))
    out = hs.report(results, tmp_path / "a.html", bootstrap=Bootstrap(resamples=10))
    assert out.stat().st_size < 25e6
    (page,) = Elements(out.read_text()).texts("script", id="page")
    assert 30 < json.loads(page)["patched"] < 50


@pytest.mark.slow
def test_a_file_that_is_there_is_kept(tmp_path, results):
    place = tmp_path / "a.html"
    place.write_text("kept")
    with pytest.raises(HydrascopeError, match="exists: choose another path, or overwrite it"):
        hs.report(results, place, bootstrap=FEW)
    assert place.read_text() == "kept"
    one_prompt = results.isel(prompt=[0])
    hs.report(one_prompt, place, bootstrap=FEW, overwrite=True)
    assert place.read_text().startswith("<!doctype html>")
    with pytest.raises(HydrascopeError, match=r"cannot write .*missing"):
        hs.report(one_prompt, tmp_path / "missing" / "a.html", bootstrap=FEW)


@pytest.mark.slow
def test_the_command(tmp_path):
    result, out = tmp_path / "a.zarr", tmp_path / "a.html"
    hs.sweep(hs.load_model("phantom"), hs.load_prompts("phantom").limit(8), hs.Zero(), out=result)

    def command(*options):
        arguments = ["report", str(result), "--out", *map(str, options)]
        return CliRunner().invoke(app, arguments, catch_exceptions=False, standalone_mode=False).stdout

    assert command(out).endswith(f" MB: {out}\n")
    with pytest.raises(HydrascopeError, match="exists"):
        command(out)
    command(out, "--overwrite")
    with pytest.raises(HydrascopeError, match=r"give a file name that ends in .html"):
        command(tmp_path / "a.pdf")
