"""The report: to JSON and back, and its layout on a terminal held to golden files."""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

import fastcheck
from fastcheck import BlockReport, Coordinate, Finding, GradientError, InputError, Report, Verdict, examples
from fastcheck.conclude import record
from fastcheck.findings import Kind
from fastcheck.report import words
from fastcheck.report.terminal import as_text, shortened
from fastcheck.run import Run, bar

GOLDEN = Path(__file__).parent / "golden"
LINES = 25


def block(verdict=Verdict.CORRECT, shape=(5, 4), difference=3.2e-9, wrong=0, kinks=0, **more):
    size = math.prod(shape)
    known = {"checked": size, "bound": 4.1e-8, "uncertainty": 2.0e-8, "detectable": 2.4e-7}
    return BlockReport(
        shape=shape, size=size, difference=difference, verdict=verdict, wrong=wrong, kinks=kinks, **(known | more)
    )


UNCHECKED = {"checked": 0, "bound": math.nan, "uncertainty": math.nan, "detectable": math.inf}


def report(verdict, blocks, **more):
    known = {
        "difference": 3.2e-9,
        "uncertainty": 2e-8,
        "bound": 4.1e-8,
        "wrong": (),
        "findings": (),
        "coverage": 1.0,
        "evaluations": 220,
        "seconds": 0.0123,
        "settings": {"seed": 0, "confidence": 0.9999, "tolerance": 1e-7},
    }
    return Report(verdict=verdict, blocks=blocks, **(known | more))


def many_blocks(n, size, bad=0):
    blocks = {f"layer{i}.weight": block(shape=(size, 10)) for i in range(n)}
    for i in range(bad):
        blocks[f"layer{7 * i}.weight"] = block(Verdict.WRONG, (size, 10), 0.5 - 1e-3 * i, wrong=3 * size)
    return blocks


LONG = Finding(
    Kind.KINKS,
    None,
    "Kinks: " + ", ".join(f"layer{i}.weight[0, {i}]" for i in range(4)) + " and 1,234 more are at a kink, where any "
    "value between the one-sided slopes is a subgradient. This sentence goes on for as long as any finding does.",
    {"share": 0.1},
)

REPORTS = {
    "correct": report(Verdict.CORRECT, {"W1": block(), "b1": block(shape=(5, 1), difference=1.1e-10)}),
    "correct_1e2": report(Verdict.CORRECT, many_blocks(1, 10)),
    "correct_1e4": report(Verdict.CORRECT, many_blocks(10, 100), evaluations=20_340, seconds=1.234),
    "correct_1e7": report(Verdict.CORRECT, many_blocks(100, 10_000), evaluations=20_000_340, seconds=4321.0),
    "unchecked": report(
        Verdict.CORRECT,
        {"W1": block(), "dead": block(Verdict.INCONCLUSIVE, (4,), math.nan, **UNCHECKED)},
        findings=(Finding(Kind.UNCHECKED, "dead", "dead is unchecked: its gradient is zero.", {}),),
    ),
    "acceptable": report(
        Verdict.ACCEPTABLE,
        {"W1": block(Verdict.ACCEPTABLE, difference=2e-5, kinks=3), "b1": block(shape=())},
        findings=(LONG,),
    ),
    "wrong_one_coordinate": report(
        Verdict.WRONG,
        {"W1": block(), "W2": block(Verdict.WRONG, (3, 5), 0.0123, wrong=1)},
        difference=0.0123,
        wrong=(Coordinate("W2", (1, 3), 0.5, 0.25000001234, 2.1e-8),),
    ),
    "wrong_scalar": report(
        Verdict.WRONG,
        {"temperature": block(Verdict.WRONG, (), 0.5, wrong=1)},
        difference=0.5,
        wrong=(Coordinate("temperature", (), -3.0, 1.0, 1e-9),),
    ),
    "wrong_1e7": report(
        Verdict.WRONG,
        many_blocks(100, 10_000, bad=12),
        difference=0.31,
        wrong=tuple(
            Coordinate(f"layer{7 * i}.weight", (j, 3), 2.0 + j, 1.0 + j / 7, 1e-8 * (1 + i))
            for i in range(12)
            for j in range(9)
        ),
        findings=tuple(dataclasses.replace(LONG, message=f"{i}: {LONG.message}") for i in range(9)),
        coverage=0.0123,
        evaluations=1,
        seconds=90.0,
    ),
    "long_names": report(
        Verdict.WRONG,
        {
            "transformer.encoder.layers.11.self_attention.in_proj_weight": block(
                Verdict.WRONG, (3072, 1024), 0.00891512, wrong=2
            ),
            "transformer.encoder.layers.11.self_attention.in_proj_bias": block(shape=(3072,)),
        },
        difference=0.0089,
        wrong=tuple(
            Coordinate(
                "transformer.encoder.layers.11.self_attention.in_proj_weight",
                (2047, k),
                -1.234567891e-05,
                8.9e-4,
                1e-12,
            )
            for k in (3, 1023)
        ),
        settings={"seed": 3, "confidence": 0.9999, "command": "fastcheck check net.py:problem --mode screen --seed 3"},
    ),
    "suspicious": report(
        Verdict.SUSPICIOUS,
        {"W1": block(Verdict.SUSPICIOUS, difference=3e-5, wrong=20), "b1": block(shape=(5,))},
        difference=3e-5,
        wrong=tuple(Coordinate("W1", (i, 0), 1.00006, 1.0, 2e-8) for i in range(5)),
    ),
    "random": report(
        Verdict.INCONCLUSIVE,
        {"W1": block(Verdict.INCONCLUSIVE, (5, 4), math.nan, **UNCHECKED)},
        difference=math.nan,
        uncertainty=math.nan,
        bound=math.nan,
        findings=(
            Finding(Kind.RANDOM_LOSS, None, "The loss is random: 1.2, 1.3 at the same theta.", {"values": [1.2]}),
        ),
        coverage=0.0,
        evaluations=4,
        seconds=0.0004,
    ),
}


WIDTHS = (60, 80, 120)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", sorted(REPORTS))
def test_terminal_golden(name, width):
    text = as_text(REPORTS[name], width) + "\n"
    file = GOLDEN / f"{name}_{width}.txt"
    assert text == file.read_text(encoding="utf-8"), f"if the new text is better, put it into {file}"
    assert len(text.splitlines()) <= LINES + 3 * (width < 80)  # where the first line alone takes five
    assert max(len(line) for line in text.splitlines() if not line.startswith("to repeat: ")) <= width


def test_every_golden_file_is_used():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {f"{name}_{w}" for name in REPORTS for w in WIDTHS}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", sorted(REPORTS))
def test_no_width_cuts_a_number_or_a_verdict(name, width):
    shown = REPORTS[name]
    text = as_text(shown, width)
    rows = [line.split() for line in text.splitlines()]
    for _, each in words.block_order(shown)[:5]:
        word = "unchecked" if each.verdict is Verdict.INCONCLUSIVE else each.verdict.value
        assert any(row[-1:] == [word] and words.number(each.difference, 3) in row for row in rows)
    for each in shown.wrong[:3]:
        values = {f"{each.analytic:.8g}", words.with_uncertainty(each.numerical, each.uncertainty)}
        index = f"[{', '.join(map(str, each.index))}]" if each.index else ""
        assert any(values <= set(line.split()) and index in line for line in text.splitlines())


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("W1", 6),
        ("encoder.layers.7.attention.weight", 16),
        ("encoder.layers.7.weight[12, 345]", 20),
        ("W1[12345, 67890]", 8),
        ("重み" * 20, 11),
    ],
)
def test_names_lose_their_middle_and_keep_their_index(name, width):
    found = shortened(name, width)
    assert found.endswith(name[name.index("[") :] if "[" in name else name[-1])
    assert found.startswith(name[0])
    assert cell_len(found) <= max(width, cell_len(name.partition("[")[2]) + 3)
    assert found == name or "…" in found


def test_text_depends_on_nothing_but_the_width(monkeypatch):
    shown = REPORTS["wrong_1e7"]
    plain = as_text(shown, 100)
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "dumb", "JUPYTER_COLUMNS": "30"}.items():
        monkeypatch.setenv(name, value)
        assert as_text(shown, 100) == plain
    assert "\x1b" not in plain


@pytest.mark.parametrize(("columns", "widest"), [("60", 60), ("80", 80), ("300", 120), ("10", 60)])
def test_print_follows_the_terminal(monkeypatch, columns, widest):
    monkeypatch.setenv("COLUMNS", columns)
    shown = REPORTS["wrong_1e7"]
    assert str(shown) == as_text(shown, widest)
    with pytest.raises(GradientError) as caught:
        shown.raise_if_wrong()
    assert str(caught.value) == str(shown)


def test_a_prompt_and_a_notebook_show_no_dump():
    shown = REPORTS["wrong_1e7"]
    assert repr(shown) == f"<Report {words.headline(shown)}>"
    page = shown._repr_html_()
    assert page.startswith("<pre")
    assert "<script" not in page
    text = html.unescape(re.sub("<[^>]*>", "", page))
    assert [line.rstrip() for line in text.splitlines()] == as_text(shown).splitlines()


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_plot(name):
    figure = REPORTS[name].plot()
    assert len(figure.axes) == (3 if REPORTS[name].wrong else 1)  # with the map and its colour bar
    figure.draw_without_rendering()


def test_what_repeats_a_run_is_said():
    net = examples.course_net(bugs=True)
    found = fastcheck.check(net.loss, net.gradient, net.params, args=net.args, tolerance=1e-6)
    call = "fastcheck.check(loss, gradient, params, args=args, mode='full', tolerance=1e-06, seed=0)"
    assert words.replay(found.settings) == call
    assert f"to repeat: {call}" in str(found)
    assert re.search(r"evaluations of the loss in \S*course\.py:\d+,", str(found).replace("\n", " "))
    told = words.circumstances(found.settings)
    assert re.search(
        rf"the loss _loss in .*course\.py:\d+; 20\d\d-\d\d-\d\d \d\d:\d\d UTC; .*numpy {np.__version__}", told
    )
    scope = {"fastcheck": fastcheck, "loss": net.loss, "gradient": net.gradient, "params": net.params, "args": net.args}
    again = eval(words.replay(found.settings), scope)
    assert (again.blocks, again.wrong) == (found.blocks, found.wrong)


class Loss:
    def __call__(self, t):
        return float(t @ t)

    def method(self, t):
        return float(t @ t)


def squares(stacked):
    return (stacked**2).sum(axis=1)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (Loss(), "Loss"),
        (Loss().method, "Loss.method"),
        (functools.partial(Loss().method), "Loss.method"),
        (fastcheck.batched(squares), "squares"),
    ],
)
def test_the_loss_is_named_whatever_it_is_wrapped_in(loss, name):
    told = record(loss, ())
    assert told["loss"] == name
    assert re.fullmatch(r".*test_report\.py:\d+", told["where"])


def test_products_are_repeated_with_their_args():
    found = fastcheck.check_vjp(lambda x, a: a * x, lambda x, u, a: a * u, np.ones(3), args=(2.0,), tolerance=1e-6)
    expected = "fastcheck.check_vjp(function, vjp, inputs, args=args, tolerance=1e-06, seed=0)"
    assert words.replay(found.settings) == expected
    assert found.settings["where"]


def test_a_loss_of_a_prompt_has_no_file():
    scope = {}
    exec("def loss(t):\n    return float(t @ t)", scope)
    found = fastcheck.check(functools.partial(scope["loss"]), lambda t: 2 * t, np.ones(3))
    assert (found.settings["loss"], found.settings["where"]) == ("loss", "")
    assert "args=args" not in words.replay(found.settings)


@pytest.mark.parametrize("n", [1, 10, 100, 10_000])
def test_terminal_is_short_whatever_the_size(n):
    shown = as_text(report(Verdict.WRONG, many_blocks(n, 100, bad=(n + 9) // 10)))
    assert len(shown.splitlines()) <= LINES


def test_terminal_of_a_real_run():
    net = examples.course_net(bugs=True)
    text = str(fastcheck.check(net.loss, net.gradient, net.params, args=net.args))
    first, second = text.splitlines()[:2]
    assert first.startswith("WRONG: W2 ×3.000 of the measured gradient")
    assert "b1 ×2.000" in first
    assert first.endswith("4 of 6 blocks agree")
    assert second.split() == ["block", "shape", "checked", "difference", "uncertainty", "detectable", "verdict"]
    assert "×3" in text
    assert "×2" in text


def test_names_are_never_read_as_markup():
    name = "[bold]x[/bold] [/red] :smile:"
    text = as_text(
        report(
            Verdict.WRONG,
            {name: block(Verdict.WRONG, (2,), 0.5, wrong=1)},
            wrong=(Coordinate(name, (1,), 1.0, 2.0, 1e-9),),
            findings=(Finding(Kind.KINKS, None, "[/nonsense] [red]a[0]", {}),),
        )
    )
    assert text.count(name) == 3
    assert "[/nonsense] [red]a[0]" in text


# Progress ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_goes_to_stderr_when_asked_for(wanted, shown, capsys):
    at = np.linspace(0.1, 1, 30)
    quiet = fastcheck.check(lambda t: float(np.sum(np.sin(t))), np.cos(at), at, progress=False)
    loud = fastcheck.check(lambda t: float(np.sum(np.sin(t))), np.cos(at), at, progress=wanted)
    out, err = capsys.readouterr()
    assert out == ""
    assert (err.strip() != "") is shown
    assert loud.difference == quiet.difference


def test_progress_counts_every_coordinate_once(capsys):
    run = Run()
    done = []
    run.advance = done.append
    with bar(run, 10, True):
        for part in (1, 2, 7):
            run.advance(part)
    assert done == [1, 2, 7]
    assert run.advance.__self__ is done  # given back
    assert "10/10" in capsys.readouterr().err


# To data and back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_round_trip(name, tmp_path):
    saved = REPORTS[name]
    path = saved.save(tmp_path / "run.json")
    json.loads(path.read_text(), parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))
    again = Report.load(path)
    assert again.to_dict() == saved.to_dict()
    assert as_text(again) == as_text(saved)
    assert again.verdict is saved.verdict
    for mine, theirs in zip(saved.blocks.values(), again.blocks.values(), strict=True):
        for field in dataclasses.fields(BlockReport):
            a, b = getattr(mine, field.name), getattr(theirs, field.name)
            assert a == b or (math.isnan(a) and math.isnan(b)), field.name
            assert type(a) is type(b)
    assert list(tmp_path.iterdir()) == [path]


def test_round_trip_of_real_runs(tmp_path):
    net = examples.course_net(bugs=True)
    first = fastcheck.check(net.loss, net.gradient, net.params, args=net.args, blocks=["W2"])
    second = fastcheck.check(net.loss, net.gradient, net.params, args=net.args)
    for original in (first, second):
        again = Report.load(original.save(tmp_path / "run.json"))
        assert again.to_dict() == original.to_dict()
        assert again.wrong == original.wrong
    for name, numbers in second.numerical.items():
        np.testing.assert_array_equal(again.numerical[name], numbers)


def test_numerical_keeps_shapes_and_names_of_nested_empty_and_scalar_blocks(tmp_path):
    params = {"a": [np.zeros((0, 3)), np.ones((2, 1))], "s": 0.5}
    gradient = {"a": [np.zeros((0, 3)), 2 * np.ones((2, 1))], "s": 1.0}
    original = fastcheck.check(lambda p: float(np.sum(p["a"][1] ** 2) + p["s"] ** 2), gradient, params)
    again = Report.load(original.save(tmp_path / "run.json"))
    assert {name: array.shape for name, array in again.numerical.items()} == {"a.0": (0, 3), "a.1": (2, 1), "s": ()}


def test_round_trip_of_a_bare_vector(tmp_path):
    theta = np.linspace(0.5, 2.0, 5)
    original = fastcheck.check(lambda t: float(np.sum(t**3)), 3 * theta**2, theta, mode="full")
    again = Report.load(original.save(tmp_path / "run.json"))
    np.testing.assert_array_equal(again.numerical["theta"], original.numerical)


def test_evidence_of_numpy_types_is_plain():
    evidence = {
        "a": np.float32(0.5),
        "b": np.arange(2),
        "c": (math.nan, -math.inf),
        "d": {1: Path("x")},
        "e": np.bool_(1),
    }
    data = report(Verdict.CORRECT, {"W": block()}, findings=(Finding(Kind.KINKS, None, "y", evidence),)).to_dict()
    assert data["findings"][0]["evidence"] == {"a": 0.5, "b": [0, 1], "c": ["nan", "-inf"], "d": {"1": "x"}, "e": True}
    json.dumps(data, allow_nan=False)


def damaged(**changes):
    return REPORTS["correct"].to_dict() | changes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a fastcheck report"),
        ("{", "is not a fastcheck report"),
        ("[1]", "is not a fastcheck report"),
        ("{}", "format=None: not a fastcheck report"),
        (json.dumps(damaged(version=2)), "version=2: this fastcheck reads version 1. Upgrade"),
        (json.dumps(damaged(blocks=[1, 2])), "the report is damaged"),
        (json.dumps(damaged(verdict="fine")), "the report is damaged"),
        (json.dumps(damaged(difference="much")), "the report is damaged"),
        (json.dumps(damaged(findings=[{"kind": 1}])), "the report is damaged"),
        (json.dumps({k: v for k, v in damaged().items() if k != "coverage"}), "the report is damaged"),
    ],
)
def test_load_of_what_is_no_report(text, said, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        Report.load(path)


def test_load_of_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Report.load(tmp_path / "run.json")
    with pytest.raises(InputError, match="is not a fastcheck report"):
        Report.load(tmp_path)


def test_save_where_nothing_can_be_saved(tmp_path):
    with pytest.raises(InputError, match=r"a report is saved as \*\.json or \*\.html"):
        REPORTS["correct"].save(tmp_path / "run.txt")
    for name in ("run.json", "run.html"):
        with pytest.raises(InputError, match="can't be written: No such file or directory"):
            REPORTS["correct"].save(tmp_path / "nowhere" / name)


def test_to_frame():
    frame = REPORTS["wrong_1e7"].to_frame()
    assert len(frame) == 100
    assert frame.loc["layer7.weight", "verdict"] == "wrong"
    assert frame["size"].sum() == 10_000_000


# Words ---------------------------------------------------------------------------------------------------------------


def test_plurals():
    assert words.count(1, "block") == "1 block"
    assert words.count(2, "block") == "2 blocks"
    assert words.count(0, "evaluation") == "0 evaluations"
    assert words.count(1_863_690, "coordinate") == "1,863,690 coordinates"
    two = {"W1": block(), "W2": block(Verdict.WRONG, wrong=1)}
    assert words.headline(report(Verdict.WRONG, two)).endswith("; 1 of 2 blocks agrees")
    three = {**two, "W3": block()}
    dead = {"W4": block(Verdict.INCONCLUSIVE, **UNCHECKED)}
    assert "every block of this 20-parameter gradient is right" in words.statement(
        report(Verdict.CORRECT, {"W": block()})
    )
    assert "1 of 2 blocks of this" in words.statement(report(Verdict.CORRECT, {"W": block(), **dead}))
    assert "gradient is right" in words.statement(report(Verdict.CORRECT, {"W": block(), **dead}))
    assert "gradient are right" in words.statement(report(Verdict.CORRECT, {"W": block(), "b": block(), **dead}))
    assert words.headline(report(Verdict.WRONG, three)).endswith("; 2 of 3 blocks agree")


def test_numbers():
    assert words.number(math.nan) == "-"
    assert words.number(math.inf) == "inf"
    assert words.number(0.0) == "0"
    assert words.number(1.234e-9) == "1.2e-09"
    assert words.number(0.31347, 3) == "0.313"
    assert words.seconds(0.0123) == "12.3 ms"
    assert words.seconds(12.34) == "12.3 s"
    assert words.seconds(600) == "10 min"


@pytest.mark.parametrize(
    ("value", "uncertainty", "said"),
    [
        (1.23456789, 1e-3, "1.235e+00"),
        (1.23456789, 2e-6, "1.234568e+00"),
        (-123.456, 1.0, "-1.23e+02"),
        (1e-12, 1e-3, "1e-12"),
        (0.5, 0.0, "0.5"),
        (0.0, 1e-9, "0"),
        (math.nan, 1.0, "-"),
        (2.5, math.inf, "2.5"),
    ],
)
def test_a_value_has_the_digits_its_uncertainty_justifies(value, uncertainty, said):
    assert words.with_uncertainty(value, uncertainty) == said


def test_ratio_is_only_told_when_it_means_something():
    assert words.ratio(Coordinate("W", (0,), 3.0, 1.0, 1e-9)) == "×3"
    assert words.ratio(Coordinate("W", (0,), 3.0, 1e-9, 1e-9)) == ""
    assert words.ratio(Coordinate("W", (0,), 1.00006, 1.0, 1e-9)) == "×(1 + 6.0e-05)"
    assert words.ratio(Coordinate("W", (0,), 0.99994, 1.0, 1e-9)) == "×(1 - 6.0e-05)"
    assert words.ratio(Coordinate("W", (0,), 0.0, -1.0, 1e-9)) == "×0"


def test_blocks_are_ordered_by_severity():
    mixed = {
        "a": block(),
        "b": block(Verdict.WRONG, difference=0.1),
        "c": block(Verdict.SUSPICIOUS),
        "d": block(Verdict.WRONG, difference=0.9),
    }
    assert [name for name, _ in words.block_order(report(Verdict.WRONG, mixed))] == ["d", "b", "c", "a"]
