"""Path patching, circuits and maps from the command line: the numbers of the library, most on the phantom."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from command import Run
from PIL import Image
from tiny import shared

import hydrascope as hs
from hydrascope.analyses.faithfulness import growing_sets
from hydrascope.measures import Bootstrap
from hydrascope.models import phantom
from hydrascope.reports.figures import figure_circuit, figure_paths
from hydrascope.reports.summary import path_rows, steps
from hydrascope.utils.errors import HydrascopeError

COMMON = ("phantom", "--prompts", "phantom", "--limit", "30", "--ablation", "zero")
BACKUPS = ("head.4.1", "mlp.3", "mlp.5")
KEPT = f"{phantom.SOURCE},{phantom.UNWATCHED}"
OF = ",".join((phantom.SOURCE, phantom.UNWATCHED, *BACKUPS))
PATHS = ("paths", *COMMON, "--from", phantom.SOURCE, "--to", f"layers,{BACKUPS[0]},value.4.1,logits")
CIRCUIT = ("circuit", *COMMON, "--keep", KEPT, "--of", OF, "--readout", "difference,logit")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def run_of(picture: Path) -> tuple[str | None, ...]:
    """Return the model, prompts, ablation, positions and readout that a picture's metadata name."""
    with Image.open(picture) as opened:
        run = json.loads(opened.text["Description"])
    return tuple(run.get(name) for name in ("model", "prompts", "ablation", "positions", "readout"))


def number(row: dict[str, str], name: str) -> list[float]:
    """An estimate and its bounds."""
    return [float(row[name + end]) for end in ("", "_low", "_high")]


@pytest.mark.usefixtures("one_format")
def test_paths_are_the_means_of_path_patching(hydrascope: Run, tmp_path: Path) -> None:
    code, out, err = hydrascope(*PATHS, "--format", "csv", "--out", tmp_path / "p")
    assert (code, err) == (0, f"2 files in {tmp_path / 'p'}\n")
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["paths.csv", "paths.png"]
    assert run_of(tmp_path / "p/paths.png") == ("phantom", "30 of phantom", "zero", "last", "logit")
    assert (tmp_path / "p/paths.csv").read_text() == out
    model, prompts = hs.load_model("phantom"), hs.load_prompts("phantom").limit(30)
    asked = {"senders": phantom.SOURCE, "receivers": "layers,head.4.1,value.4.1,logits"}
    found = hs.analyses.path_patching(model, prompts, hs.Zero(), **asked)
    rows = read(out)
    # Downstream of attn.3 are 5 sublayers; and one head, what it reads, the logits.
    assert rows[0]["receiver"] == "logits"
    others = {"mlp.3", "attn.4", "mlp.4", "attn.5", "mlp.5", "head.4.1", "value.4.1"}
    assert {row["receiver"] for row in rows[1:]} == others
    for row in rows:
        one = found.isel(readout=0).sel(sender=row["sender"], receiver=row["receiver"])
        for name in ("frozen", "free"):
            estimate, low, high = number(row, name)
            assert estimate == pytest.approx(float(one[name].mean()), abs=1e-6)
            assert low <= estimate <= high


def test_bounds_of_paths_hold_for_all_at_once() -> None:
    """Wider than those of each path alone, but around the same means."""
    found = hs.analyses.path_patching(shared("gpt2"), [[n, 2 * n, 3] for n in range(4, 16)], hs.Zero(), senders="attn")
    bootstrap = Bootstrap(resamples=200)
    rows = path_rows(found, None, bootstrap)
    assert len(rows) == int(found["downstream"].sum())
    sizes = [abs(row.free.estimate) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    drawn = np.random.default_rng(bootstrap.seed).integers(12, size=(200, 12))
    for row in rows:
        values = found["free"].isel(readout=0).sel(sender=row.sender, receiver=row.receiver).values
        low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
        assert row.free.estimate == pytest.approx(values.mean())
        assert row.free.high - row.free.low >= 0.9 * (high - low)
    wider = [(row.free.high - row.free.low) for row in rows if row.free.estimate]
    assert min(wider) > 0


@pytest.mark.usefixtures("one_format")
def test_circuits_are_those_of_faithfulness(hydrascope: Run, tmp_path: Path) -> None:
    """In the difference the source brings 1, the unwatched sublayer 0.6, the backups take away what they restore."""
    code, out, err = hydrascope(*CIRCUIT, "--format", "csv", "--out", tmp_path)
    assert (code, err) == (0, f"2 files in {tmp_path}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circuit.csv", "circuit.png"]
    assert run_of(tmp_path / "circuit.png") == ("phantom", "30 of phantom", "zero", "last", "difference")
    rows = read(out)
    assert [row["readout"] for row in rows] == 4 * ["difference"] + 4 * ["logit"]
    assert [(row["kept"], row["component"]) for row in rows[:4]] == [
        *(("0", "none"), ("1", phantom.SOURCE), ("2", phantom.UNWATCHED), ("5", "all"))
    ]
    model, prompts = hs.load_model("phantom"), hs.load_prompts("phantom").limit(30)
    readouts = [hs.LogitDifference(), hs.Logit()]
    found = hs.analyses.faithfulness(model, prompts, hs.Zero(), order=OF, shares=(0, 0.2, 0.4, 1), readouts=readouts)
    for place, row in enumerate(rows):
        one = found.isel(readout=place // 4, share=place % 4)
        np.testing.assert_allclose(number(row, "faithfulness"), one["faithfulness"], rtol=1e-9)
        assert number(row, "lost")[0] == pytest.approx(-float(one["effect"].mean()), abs=1e-9)
    (first,), (second,) = ([float(row["faithfulness"])] for row in rows[1:3])
    assert second / first == pytest.approx(1.6, abs=0.01)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (PATHS, ("By which way", "all else free", "95% for all ways")),
        (CIRCUIT, ("lost without the rest", "(CPR)", "1.00 [1.00, 1.00]")),
    ],
)
def test_as_text(hydrascope: Run, command: tuple[str, ...], told: tuple[str, ...]) -> None:
    code, out, err = hydrascope(*command)
    assert (code, err) == (0, "")
    assert all(each in " ".join(out.split()) for each in told)
    assert max(map(len, out.splitlines())) <= 80


def test_of_many_rows_some_are_shown(hydrascope: Run) -> None:
    _, out, _ = hydrascope("paths", *COMMON, "--from", "attn", "--to", "layers")
    shown = sum("│" in line for line in out.splitlines())
    _, out_csv, _ = hydrascope("paths", *COMMON, "--from", "attn", "--to", "layers", "--format", "csv")
    assert shown == 20 < len(read(out_csv))
    assert f"20 of {len(read(out_csv))} are shown; all: --format csv." in " ".join(out.split())
    _, out, _ = hydrascope("circuit", *COMMON, "--keep", "heads", "--of", "heads")
    assert sum("│" in line for line in out.splitlines()) == 20
    assert "20 of 25 circuits are shown; all: --format csv." in " ".join(out.split())


def test_an_order_grows_from_none_to_all() -> None:
    model = shared("gpt2")
    order, shares = growing_sets(model, "mlp.1,attn.0", "layers")
    assert [str(component) for component in order] == ["mlp.1", "attn.0", "mlp.0", "attn.1", "attn.2", "mlp.2"]
    assert shares == [0, 1 / 6, 2 / 6, 1]
    assert growing_sets(model, "layers", "layers")[1] == [place / 6 for place in range(7)]
    with pytest.raises(HydrascopeError, match=r"head\.0\.1 can't be kept: it is not among the ablated components"):
        growing_sets(model, "attn.0,head.0.1", "layers")


def test_figures_show_the_means() -> None:
    model, prompts = shared("gpt2"), [[5, 6, 7], [8, 9, 10, 11], [12, 13]]
    found = hs.analyses.path_patching(
        model, prompts, hs.Zero(), senders="mlp.1,attn.0", receivers="logits,query.1.0,mlp"
    )
    drawn_paths = figure_paths(found)
    assert "zero at last · Readout: logit · hydrascope" in " ".join(drawn_paths.get_suptitle().split())
    assert "prompts: 3 · " in " ".join(drawn_paths.get_suptitle().split())
    axes = drawn_paths.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["mlp.0", "mlp.1", "mlp.2", "query.1.0", "logits"]
    drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
    held = found["frozen"].isel(readout=0).mean("prompt").where(found["downstream"])
    expected = held.sel(sender=["attn.0", "mlp.1"], receiver=["mlp.0", "mlp.1", "mlp.2", "query.1.0", "logits"])
    np.testing.assert_allclose(drawn, expected)
    faithful = hs.analyses.faithfulness(model, prompts, hs.Zero(), order="layers", shares=(0, 0.5, 1))
    drawn_circuit = figure_circuit(faithful)
    assert "prompts: 3 · zero at last · Readout: logit" in " ".join(drawn_circuit.get_suptitle().split())
    (line,) = (line for line in drawn_circuit.axes[0].lines if len(line.get_xdata()) == 3)
    np.testing.assert_array_equal(line.get_xdata(), [0, 3, 6])
    np.testing.assert_allclose(line.get_ydata(), faithful["faithfulness"].sel(bound="estimate").isel(readout=0))
    assert [row.kept for row in steps(faithful, growing_sets(model, "layers", "layers")[0])] == [0, 3, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("paths {model} --prompts {prompts} --at subject", "path patching can't be at 'subject': give last or all"),
        ("paths {model} --prompts {prompts} --from attn.9", "has no attn.9"),
        ("paths {model} --prompts {prompts} --from attn.0 --to neuron.1.3", "can't be a mediator"),
        ("paths {model} --prompts {prompts} --from attn.0+mlp.1 --to mlp", "name them one by one"),
        ("paths {model} --prompts {prompts} --from attn.0 --to mlp --out {prompts}", "not a folder"),
        ("paths {model} --prompts {prompts} --resume", "No such option: --resume"),
        ("circuit {model} --prompts {prompts}", "Missing option '--keep'"),
        ("circuit {model} --prompts {prompts} --keep heads", "head.0.0 can't be kept"),
        ("circuit {model} --prompts {prompts} --keep attn.0 --of attn.0,head.0.1", "head.0.1"),
        ("circuit {model} --prompts {prompts} --keep attn.0 --out {prompts}/x", "prompts.txt is no folder"),
    ],
)
def test_mistakes_are_one_line(hydrascope: Run, folder: Path, arguments: str, message: str) -> None:
    places = {"model": folder / "model", "prompts": folder / "prompts.txt"}
    code, out, err = hydrascope(*arguments.format(**places).split(), "--ablation", "zero")
    lines = [line for line in err.splitlines() if "duplicate" not in line]
    assert (code, out, len(lines)) == (2, "", 1)
    assert message in lines[0]


def test_help_names_no_option_of_storing(hydrascope: Run) -> None:
    for command in ("paths", "circuit"):
        _, shown, _ = hydrascope(command, "--help")
        assert all(option in shown for option in ("--prompts", "--ablation", "--readout", "--out"))
        assert not any(option in shown for option in ("--resume", "--metric", "--dry-run", "--overwrite"))


@pytest.mark.usefixtures("one_format")
def test_a_map_is_that_of_the_library(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    given = ("map", folder / "model", "--prompt", "the cat", "--dtype", "float64")
    code, out, err = hydrascope(*given, "--format", "csv", "--out", tmp_path / "m")
    assert (code, err) == (0, f"2 files in {tmp_path / 'm'}\n")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["map.csv", "map.png"]
    assert run_of(tmp_path / "m/map.png") == ("model", None, "zero", "each token alone", "logit")
    assert (tmp_path / "m/map.csv").read_text() == out
    model = hs.load_model(folder / "model", dtype="float64")
    found = hs.analyses.position_map(model, "the cat")
    rows = read(out)
    assert len(rows) == found["cost"].size == 7 * 6
    sizes = [abs(float(row["cost"])) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    for row in rows:
        cell = found["cost"].isel(token=int(row["token"])).sel(component=row["component"])
        assert float(row["cost"]) == pytest.approx(float(cell), abs=1e-9)
        assert row["text"] == "the cat"[int(row["token"])]
    code, out, err = hydrascope(*given)
    assert (code, err) == (0, "")
    told = " ".join(out.split())
    assert "20 of 42 cells are shown" in told
    assert f"with probability {100 * float(found['probability']):.3g}%" in told
    assert max(map(len, out.splitlines())) <= 80


def test_a_map_by_other_prompts_and_by_a_twin(hydrascope: Run, folder: Path) -> None:
    model = hs.load_model(folder / "model")
    given = ("map", folder / "model", "--prompt", "abc", "--format", "csv", "--components", "mlp.1")
    others = hs.load_prompts(folder / "prompts.txt").limit(3)
    _, out, _ = hydrascope(*given, "--ablation", "mean", "--prompts", folder / "prompts.txt", "--limit", 3)
    found = hs.analyses.position_map(model, "abc", hs.Mean(), components="mlp.1", others=others)
    assert {int(row["token"]): float(row["cost"]) for row in read(out)} == pytest.approx(
        dict(enumerate(found["cost"].values[:, 0])), abs=1e-5
    )
    difference = ("--readout", "difference", "--answer", "d", "--foil", "e")
    _, out, _ = hydrascope(*given, "--ablation", "counterfactual", "--counterfactual", "axc", *difference)
    prompt = hs.Prompt("abc", "d", foil="e", counterfactual="axc")
    found = hs.analyses.position_map(
        model, prompt, hs.Counterfactual(), components="mlp.1", readout=hs.LogitDifference()
    )
    assert {int(row["token"]): float(row["cost"]) for row in read(out)} == pytest.approx(
        dict(enumerate(found["cost"].values[:, 0])), abs=1e-5
    )


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("--ablation mean", "this is one prompt: give others (--prompts), or ablate by zero, noise or counterfactual"),
        ("--ablation counterfactual", "counterfactual"),
        ("--readout logit,placebo", "a map shows one readout, not 2: give one --readout"),
        ("--components attn.7", "attn.7"),
        ("--patches 3", "has one patch: leave out --patches"),
    ],
)
def test_mistakes_of_maps(hydrascope: Run, folder: Path, more: str, told: str) -> None:
    code, out, err = hydrascope("map", folder / "model", "--prompt", "the cat", *more.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
