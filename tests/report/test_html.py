"""The page: well formed, in the report's own words, of one piece, safe with any name."""

import base64
import hashlib
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

import fastcheck
from fastcheck.errors import MissingDependencyError
from fastcheck.examples import course_net
from fastcheck.findings import Finding, Kind
from fastcheck.judge.verdict import Verdict
from fastcheck.report import BlockReport, Coordinate, Report, figures, words
from fastcheck.report.axis import GradeAxis
from fastcheck.report.diff import Change
from fastcheck.report.figures import SIDE, kernels
from fastcheck.report.history import save
from fastcheck.report.html import as_html, write_diff
from fastcheck.report.jsonfile import _verdict
from fastcheck.report.report import Sweep
from fastcheck.run import LADDERS, Run

VOID = {"meta", "link", "br", "img", "wbr", "hr", "input"}
LOADS = {"src", "href", "xlink:href", "data", "action", "srcset", "poster", "background"}


class Page(HTMLParser):
    """Reads a page strictly: every element that is opened is closed, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text, self.styles = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.text.append(" ")

    def handle_data(self, data):
        (self.styles if self.open and self.open[-1] == "style" else self.text).append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def all(self, tag, name):
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


def run(net, **settings):
    return fastcheck.check(net.loss, net.gradient, net.params, args=net.args, progress=False, **settings)


def random_loss(net):
    rng = np.random.default_rng(0)
    return replace(net, loss=lambda params, *args: net.loss(params, *args) * (1 + 1e-3 * rng.standard_normal()))


def block(verdict=Verdict.CORRECT, difference=1e-10, shape=(4, 3), **other):
    size = math.prod(shape)
    given = {"checked": size, "bound": 3e-9, "uncertainty": 1e-9, "detectable": 2e-7, "wrong": 0, "kinks": 0} | other
    return BlockReport(shape=shape, size=size, difference=difference, verdict=verdict, **given)


def report(blocks, wrong=(), findings=(), **settings):
    verdict = max((b.verdict for b in blocks.values()), key=lambda v: v.severity)
    settings = {"confidence": 0.9999, "tolerance": 1e-7, "seed": 0} | settings
    return Report(verdict, 0.1, 1e-9, 0.3, blocks, tuple(wrong), tuple(findings), 1.0, 100, 0.5, settings)


def wrong_block(name, shape, indices):
    listed = [Coordinate(name, index, 3.0 * (i + 1), 1.0 * (i + 1), 1e-9) for i, index in enumerate(indices)]
    return {name: block(Verdict.WRONG, 0.5, shape, wrong=len(listed))}, listed


@pytest.fixture(scope="module")
def wrong():
    return run(course_net(bugs=True))


@pytest.mark.parametrize("net", [course_net(), course_net(bugs=True), random_loss(course_net())])
def test_says_what_the_report_says(net):
    found = run(net)
    page = Page(as_html(found))
    assert words.headline(found) in page.words
    assert found.verdict.message in page.words
    assert all(finding.message in page.words for finding in found.findings)
    assert all(name in page.words for name in found.blocks)
    assert page.all("html", "lang") == ["en"]
    assert page.tags.count("title") >= 1
    assert page.tags.count("h1") == 1


def test_lists_wrong_coordinates_with_the_digits_they_deserve(wrong):
    page = Page(as_html(wrong))
    for coordinate in wrong.wrong:
        assert coordinate.name in page.words
        assert words.with_uncertainty(coordinate.numerical, coordinate.uncertainty) in page.words
        assert words.with_uncertainty(coordinate.analytic, coordinate.uncertainty) in page.words
    assert "×3" in page.words
    assert "×2" in page.words


def test_blocks_stand_worst_first(wrong):
    text = Page(as_html(wrong)).words.split("verdict", 1)[1]
    places = [text.index(f"{name} {b.verdict.value}") for name, b in words.block_order(wrong)]
    assert places == sorted(places)


def test_loads_nothing(wrong):
    text = as_html(wrong)
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    loaded = [value for _, name, value in page.attributes if name in LOADS]
    assert loaded
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in loaded)
    assert not re.search(r"@import|url\((?!#)", text)
    assert any("default-src 'none'" in value for value in page.all("meta", "content"))


def test_every_table_has_headers_and_every_plot_words(wrong):
    page = Page(as_html(wrong))
    assert page.tags.count("table") == len(page.all("table", "aria-label"))
    assert set(page.all("th", "scope")) == {"row", "col"}
    assert page.tags.count("th") == len(page.all("th", "scope"))
    roles = sum(value == "img" for tag, name, value in page.attributes if name == "role")
    hidden = page.all("svg", "aria-hidden").count("true")
    assert page.tags.count("figure") == hidden == 3  # the worst coordinate, W2, b1, each within a described element
    assert roles == page.tags.count("svg")
    assert any("W2" in value and "all 4 wrong coordinates" in value for value in page.all("div", "aria-label"))


def test_ids_are_unique_and_references_lead_somewhere(wrong):
    text = as_html(wrong)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="|url\()#([^")]+)', text)
    assert references
    assert set(references) <= set(ids)


HOSTILE = "<script>alert('1')</script> & \"$x_{1}$\""


def test_hostile_names_are_only_text():
    blocks, listed = wrong_block(HOSTILE, (4, 3), [(0, 0), (1, 2)])
    found = report(
        blocks, listed, [Finding(Kind.KINKS, None, "<img src=x onerror=alert(1)>", {"<b>": 1.0})], mode="</pre><i>"
    )
    text = as_html(found)
    page = Page(text)
    assert "<script" not in text
    assert not {"script", "img", "i", "b"} & set(page.tags)
    assert HOSTILE in page.words
    assert "<img src=x onerror=alert(1)>" in page.words
    assert "</pre><i>" in page.words
    assert any(HOSTILE in value for value in page.all("div", "aria-label"))


@pytest.mark.parametrize("count", [1, 16, 17, 200])
def test_any_number_of_blocks(count):
    found = report({f"layer.{i}": block(difference=10.0 ** -(8 + i % 9)) for i in range(count)})
    page = Page(as_html(found))
    assert page.tags.count("circle") == count
    assert all(f"layer.{i} " in page.words for i in range(count))
    assert (f"{count - 16} more block" in page.words) == (count > 16)


def test_unknown_and_extreme_values():
    nan, inf = math.nan, math.inf
    blocks = {
        "none": block(Verdict.INCONCLUSIVE, nan, checked=0, bound=nan, uncertainty=nan, detectable=inf),
        "zero": block(difference=0.0, uncertainty=0.0, shape=()),
        "tiny": block(difference=1e-300, uncertainty=5e-324),
        "empty": block(Verdict.INCONCLUSIVE, nan, shape=(0, 4), uncertainty=nan, bound=nan, detectable=inf),
        "bad": block(Verdict.WRONG, 1.0, uncertainty=3.0, wrong=3, bound=inf),
    }
    listed = [
        Coordinate("bad", (0, 0), nan, 1.0, 1e-9),
        Coordinate("bad", (0, 1), 1e300, -1e-300, 1e-305),
        Coordinate("bad", (1, 1), 0.0, 1.0, nan),
    ]
    page = Page(as_html(report(blocks, listed)))
    assert "unchecked" in page.words
    assert page.tags.count("circle") == 3  # nothing is drawn of what is not known
    assert "nan" not in " ".join(v for t, n, v in page.attributes if t in ("circle", "line", "rect") and v)


def test_a_loaded_report_gives_the_same_page(tmp_path, wrong):
    loaded = Report.load(wrong.save(tmp_path / "r.json"))
    assert as_html(loaded) == as_html(wrong)
    assert as_html(replace(loaded, numerical=None)) == as_html(wrong)


def test_save_writes_the_page_whole(tmp_path, wrong):
    path = wrong.save(tmp_path / "r.html")
    assert path.read_text(encoding="utf-8") == as_html(wrong)
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_the_call_that_repeats_the_run():
    found = run(course_net(), step=1e-7, seed=5, blocks=["W*"], mode="full")
    call = "fastcheck.check(loss, gradient, params, args=args, mode='full', blocks=['W*'], step=1e-07, seed=5)"
    assert call in Page(as_html(found)).words


@pytest.mark.parametrize(
    ("module", "shown"), [("jinja2", "Jinja2"), ("matplotlib", "matplotlib"), ("matplotlib.figure", "matplotlib")]
)
def test_without_a_library(monkeypatch, tmp_path, wrong, module, shown):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{shown}: pip install 'fastcheck\[html\]'"):
        wrong.save(tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_a_right_gradient_needs_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert Page(as_html(report({"W": block()}))).tags.count("figure") == 0


def test_the_log_axis_keeps_order_and_limits():
    axis = GradeAxis.of([block(difference=3e-13, uncertainty=2e-9)], 1e-7)
    assert axis.low == pytest.approx(1e-13)
    assert axis.at(axis.low) == 0 == axis.at(0.0)
    assert axis.at(1.0) == axis.width == axis.at(math.inf)
    assert axis.at(math.nan) is None
    assert axis.limits == (1e-7, 1e-4, 1e-2)
    decades = [axis.at(10.0**-k) for k in range(14)]
    assert np.diff(decades) == pytest.approx(-axis.width / 13, abs=0.02)
    assert {text for _, text in axis.labels} == {"1", "1e-2", "1e-4", "1e-7", "1e-13"}


@pytest.mark.parametrize("tolerance", [1e-15, 1e-7, 1e-4, 3e-2, 0.5])
def test_labels_of_the_axis_do_not_overlap(tolerance):
    places = sorted(place for place, _ in GradeAxis.of([block()], tolerance).labels)
    assert min(np.diff(places)) > 30


@pytest.mark.parametrize("shape", [(3,), (1, 5), (4, 6), (2, 3, 4), (300, 250), (97, 1), (1000,)])
def test_errors_by_index_against_an_obvious_loop(shape):
    rng = np.random.default_rng(3)
    analytic, measured = np.ones(shape), np.ones(shape)
    chosen = {tuple(int(rng.integers(n)) for n in shape) for _ in range(20)}
    for index in chosen:
        measured[index] = rng.uniform(0.1, 0.9)
    listed = [Coordinate("W", i, float(analytic[i]), float(measured[i]), 1e-9) for i in chosen]
    errors, (rows, columns) = figures.by_index(shape, listed)
    assert rows * columns == math.prod(shape)
    assert max(errors.shape) <= figures.CELLS
    full = (np.abs(analytic - measured) / (analytic + measured)).reshape(rows, columns)
    tall, wide = math.ceil(rows / figures.CELLS), math.ceil(columns / figures.CELLS)
    for i in range(errors.shape[0]):
        for j in range(errors.shape[1]):
            cell = full[i * tall : (i + 1) * tall, j * wide : (j + 1) * wide].max()
            assert errors[i, j] == cell if cell else math.isnan(errors[i, j])


def test_the_caption_says_what_a_blank_means():
    blocks, listed = wrong_block("W", (4, 3), [(0, 0), (1, 2)])
    captions = [
        (blocks["W"], "measured and agree"),
        (replace(blocks["W"], checked=5), "5 of 12 were measured one by one, so a blank is no proof"),
        (replace(blocks["W"], wrong=4), "the worst 2 of 4 wrong coordinates; a blank was measured, and is"),
        (replace(blocks["W"], wrong=12), "the worst 2 of 12 wrong coordinates; the whole block is wrong"),
    ]
    for one, caption in captions:
        assert caption in Page(as_html(report({"W": one}, listed))).words


@pytest.mark.parametrize(
    ("shape", "index", "place"),
    [
        ((2, 3, 3, 3), (1, 2, 0, 1), (4, 9)),  # a gap of one cell between kernels
        ((3, 3, 2, 5), (0, 1, 1, 4), (4, 17)),  # height and width first, as they are the equal ones
        ((8, 1, 3, 3), (7, 0, 2, 2), (30, 2)),
        ((4, 4, 2, 2), (3, 0, 1, 0), (10, 0)),
    ],
)
def test_kernels_stand_side_by_side(shape, index, place):
    grid = kernels(shape, [Coordinate("K", index, 2.0, 1.0, 1e-9)], figures.relative_error)
    assert [tuple(map(int, cell)) for cell in np.argwhere(np.isfinite(grid.errors))] == [place]
    assert grid.errors[place] == pytest.approx(1 / 3)
    height, width = grid.kernel
    cells = {(r + i, c + j) for r, c in grid.corners for i in range(height) for j in range(width)}
    assert len(cells) == math.prod(shape)
    assert max(grid.errors.shape) <= SIDE


def test_of_many_kernels_the_worst_are_shown():
    listed = [Coordinate("K", (i, 2 * i, i % 3, 1), 2.0, 1.0, 1e-9) for i in range(40)]
    grid = kernels((64, 128, 3, 3), listed, figures.relative_error)
    assert grid.titles == [f"{i}, {2 * i}" for i in range(15)]
    assert np.isfinite(grid.errors).sum() == len(grid.corners) == 15
    assert "the worst 15 of 8,192 kernels" in grid.across


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 1, 1), (2, 2, 2, 2, 2), (2, 3, 200, 200)])
def test_what_is_no_kernel(shape):
    first = Coordinate("K", (0,) * len(shape), 2.0, 1.0, 1e-9)
    assert kernels(shape, [first], figures.relative_error) is None


@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (64, 32, 5, 5)])
def test_a_page_of_kernels(shape):
    indices = [(i, i % 2, i % 3, 0) for i in range(4)]
    page = Page(as_html(report(*wrong_block("K", shape, indices))))
    assert ("the worst 4 of 2,048 kernels" in page.words) == (shape[0] == 64)
    assert ("second index" in page.words) == (shape[0] == 4)


def test_a_few_points_are_no_scatter_and_many_are():
    for count, drawings in ((4, 1), (12, 2)):
        blocks, listed = wrong_block("W", (4, 3), [(i // 3, i % 3) for i in range(count)])
        page = Page(as_html(report(blocks, listed)))
        assert page.all("svg", "aria-hidden").count("true") == drawings
        assert ("analytic against measured (dashed" in page.words) == (drawings == 2)


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_the_worst_coordinate_is_shown_over_the_step(mode, tmp_path):
    net = course_net(bugs=True)
    found = run(net, mode=mode)
    worst, sweep = found.wrong[0], found.sweep
    assert (sweep.block, sweep.index) == (worst.block, worst.index)
    known = np.array(sweep.rounding) < 1e-3 * abs(worst.numerical)
    assert known.sum() >= 3  # there is a plateau, and it is at the measured derivative
    apart = np.abs(np.array(sweep.derivatives) - worst.numerical)[known]
    assert np.sum(apart <= 1e-3 * abs(worst.numerical)) >= 3
    assert "error over the step (grey: rounding)" in Page(as_html(found)).words
    assert fastcheck.Report.load(found.save(tmp_path / "r.json")).sweep == sweep
    assert run(course_net(), mode=mode).sweep is None


@pytest.mark.parametrize("steps", [(), (1e308, 5e-324), (1e308, 1e-3, 1e-4, 1e-5, -1.0, math.nan)])
def test_a_sweep_of_any_numbers_is_drawn(steps):
    blocks, listed = wrong_block("W", (4, 3), [(0, 0)])
    values = (1e308, -1e308, 3.0, 0.0, math.inf, 1.0)[: len(steps)]
    found = replace(
        report(blocks, listed),
        sweep=Sweep("W", (0, 0), steps, values, (1e308, 0.0, -1.0, 1e-9, 1.0, 1.0)[: len(steps)]),
    )
    assert ("error over the step" in Page(as_html(found)).words) is (len(steps) > 2)


def test_a_report_in_other_terms_shows_no_sweep_of_a_block_it_lacks(tmp_path):
    matrix = np.arange(12.0).reshape(3, 4) + 1
    wrong = matrix.copy()
    wrong[1, 2] *= 1.1
    found = fastcheck.check_jacobian(lambda x: matrix @ x, lambda x: wrong, np.ones(4))
    assert [c.name for c in found.wrong] == ["jac[1, 2]"]
    assert found.sweep is None
    assert fastcheck.Report.load(found.save(tmp_path / "r.json")).blocks == dict(found.blocks)


def test_few_ladders_are_kept():
    with Run() as kept:
        for place in range(LADDERS + 5):
            kept.keep(None, place, ())
    assert len(kept.ladders) == LADDERS


def test_the_only_script_is_a_filter_that_the_page_knows_by_its_hash():
    text = as_html(report({f"layer.{i}": block() for i in range(200)}))
    page = Page(text)
    assert page.tags.count("script") == page.tags.count("input") == 1
    assert len(page.all("tr", "data-name")) == 200
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.all("meta", "content")[0].endswith(f"; script-src 'sha256-{digest}'")
    assert "http" not in script


def test_says_when_which_loss_and_what_with(wrong):
    page = Page(as_html(wrong))
    assert words.circumstances(wrong.settings) in page.words
    assert wrong.settings["date"] in page.words
    assert f"numpy {np.__version__}" in page.words
    assert re.search(r"the loss _loss in \S*course\.py:\d+", page.words)


def test_a_history_says_so_too(tmp_path, wrong):
    save([SimpleNamespace(step=0, at=0.0, report=wrong)], tmp_path / "h.html", 1e-7)
    assert words.circumstances(wrong.settings) in (tmp_path / "h.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [2, 200])
def test_the_page_of_a_comparison(tmp_path, count):
    before = report({HOSTILE: block(Verdict.WRONG, 0.5)} | {f"b{i}": block() for i in range(count - 1)}, seed=1)
    after = report({HOSTILE: block()} | {f"b{i}": block() for i in range(1, count)})
    write_diff(before, after, tmp_path / "d.html")
    page = Page((tmp_path / "d.html").read_text(encoding="utf-8"))
    assert f"WRONG → CORRECT: {count + 1} blocks, 1 new, 1 gone, 1 fixed" in page.words
    assert f"{HOSTILE} fixed" in page.words
    assert page.tags.count("circle") == 2 * (count + 1) - 2
    assert page.tags.count("script") == (count > 40)
    assert "seed 1 0" in page.words


CHANGES = {
    ("wrong", "correct"): "fixed", ("wrong", "suspicious"): "still wrong", ("correct", "wrong"): "broken",
    ("correct", "acceptable"): "as before", ("inconclusive", "correct"): "now checked",
    ("inconclusive", "wrong"): "broken", ("inconclusive", "inconclusive"): "as before",
    ("correct", "inconclusive"): "now unchecked", ("wrong", "inconclusive"): "now unchecked",
}  # fmt: skip


@pytest.mark.parametrize(("both", "word"), CHANGES.items())
def test_what_became_of_a_block(both, word):
    was, now = (block(_verdict(verdict)) for verdict in both)
    assert Change("W", was, now).word == word


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(tmp_path, wrong, scheme):
    import matplotlib.image

    page, shot = wrong.save(tmp_path / "r.html"), tmp_path / "shot.png"
    switches = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [CHROMIUM, *switches.split(), "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", "--window-size=1200,1850"]
    command += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", page.as_uri()]
    subprocess.run(command, check=True, timeout=100, capture_output=True)
    pixels = matplotlib.image.imread(shot)[..., :3]
    paper = pixels[-1, -1]
    assert (paper.mean() > 0.9) == (scheme == "light")
    heat = np.array([0xA8, 0x23, 0x7F]) / 255  # the map of W2 and b1 is there
    assert np.mean(np.abs(pixels - heat).max(axis=-1) < 0.1) > 0.005
    ink = np.abs(pixels - paper).max(axis=-1) > 0.3
    assert ink[:150].any()
    assert ink[-300:].any()
