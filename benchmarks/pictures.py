"""The pictures of the README and the docs, each drawn from a run: ``python -m benchmarks.pictures``.

In ``docs/pictures``, each for a light and a dark page: ``terminal`` is what the command prints about a net with a bug,
``certified`` about a right one; ``page`` and ``monitor`` are photographs of pages, by Chromium; ``steps`` is the error
of a difference quotient over its step; ``calibration`` and ``growth`` show the results of these benchmarks.
``python -m benchmarks.pictures growth`` draws one of them.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from scipy import stats
from threadpoolctl import threadpool_limits

import fastcheck
from benchmarks import calibration, growth
from benchmarks.judgement import NETS
from fastcheck.examples import digits_net, mlp
from fastcheck.report.terminal import render

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH = 72
THEMES = {
    "light": ("#ffffff", "#24292f", "#24292f #cf222e #116329 #9a6700 #0969da #8250df #1b7c83 #6e7781"),
    "dark": ("#161b22", "#d0d7de", "#d0d7de #ff7b72 #56d364 #e3b341 #79c0ff #d2a8ff #56d4dd #8b949e"),
}  # background, text, and the eight colours of a terminal

# -- the terminal --------------------------------------------------------------------------------------------------

SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="VIEW {terminal_width} {terminal_height}" role="img">
<title>fastcheck in a terminal</title>
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace }}
{styles}
</style>
<defs>{lines}</defs>
<rect x="-19.5" y="-15.5" width="99.9%" height="99.8%" rx="12" fill="BACKGROUND" stroke="#88888855"/>
<g class="{unique_id}-matrix">
{matrix}
</g>
</svg>
"""


COMMAND = "fastcheck check digits.py --mode full"


def digits() -> fastcheck.Report:
    """Return the report about the digits with a forgotten regulariser."""
    net = digits_net((32,), bug="missing_l2")
    report = fastcheck.check(net.loss, net.gradient, net.params, args=net.args, mode="full", workers=1)
    return replace(report, settings={**report.settings, "command": COMMAND})  # as the command itself notes it


def terminal() -> dict[str, str]:
    return printed(digits(), COMMAND)


def certified() -> dict[str, str]:
    """Return what is printed about the right gradient of a net of 1,863,690 parameters."""
    net = mlp((784, 1024, 1024, 10))
    report = fastcheck.check(net.loss, net.claimed(), net.params, args=net.args, mode="screen")
    return printed(report, "fastcheck check large.py")


def printed(report: fastcheck.Report, command: str) -> dict[str, str]:
    """Return the picture of a command and its answer in a terminal, by theme."""
    pictures = {}
    for name, (background, text, colours) in THEMES.items():
        theme = TerminalTheme(rgb(background), rgb(text), [rgb(colour) for colour in colours.split()])
        console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
        console.print(Text.assemble(("$ ", "dim"), command))
        console.print(render(report, WIDTH), crop=False)
        # rich's own template loads a font from elsewhere
        svg = console.export_svg(theme=theme, code_format=SVG.replace("BACKGROUND", background), unique_id="t")
        pictures[name] = re.sub(r'"VIEW (\S+) (\S+)"', with_margins, svg, count=1)
    return pictures


def rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:], 16)


def with_margins(size: re.Match[str]) -> str:
    return f'"-20 -16 {float(size[1]) + 40:.0f} {float(size[2]) + 32:.0f}"'


# -- the error of a difference quotient over its step --------------------------------------------------------------

STEPS = 10.0 ** np.arange(-12, -0.5, 0.25)
COORDINATES = 60


def errors(subject: Any, scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the median and the largest error of measured derivatives, relative to the gradient's root mean square."""
    g = subject.flat(subject.gradient)
    some = np.random.default_rng(0).choice(subject.size, COORDINATES, replace=False)
    size = np.sqrt(np.mean(g**2))
    found = []
    for h in STEPS:
        row = []
        for i in some:
            theta = subject.theta.copy()
            theta[i] += h
            up, plus = theta[i], subject.flat_loss(theta)
            theta[i] = subject.theta[i] - (h if scheme == "central" else 0)
            row.append((plus - subject.flat_loss(theta)) / (up - theta[i]))
        found.append(np.abs(np.array(row) - g[some]) / size)
    return np.median(found, axis=1), np.max(found, axis=1)


def steps() -> dict[str, str]:
    """Return the plot, by theme."""
    smooth, kinked, coarse = (NETS[name][0]() for name in ("tanh", "relu", "coarse"))
    curves: list[tuple[str, np.ndarray, str, str]] = [
        ("one-sided", errors(smooth, "forward")[0], "#c27b00", "-"),
        ("central", errors(smooth, "central")[0], "#2f74d0", "-"),
        ("central, relu, the worst coordinate", errors(kinked, "central")[1], "#c2418c", "--"),
        ("central, forward pass in float32", errors(coarse, "central")[0], "#3a9a5b", "-"),
    ]
    chosen = {}
    for subject, colour in ((smooth, "#2f74d0"), (coarse, "#3a9a5b")):
        report = fastcheck.check(subject.loss, subject.gradient, subject.params, mode="full", blocks="W1", seed=0)
        chosen[colour] = float(np.median(report.settings["steps"]["W1"]))
    return {theme: drawn(curves, chosen, ink) for theme, ink in INKS.items()}


def drawn(curves: list[tuple[str, np.ndarray, str, str]], chosen: dict[str, float], ink: str) -> str:
    with mpl.rc_context(style(ink)):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for label, values, colour, line in curves:
            axes.loglog(STEPS, values, line, color=colour, lw=2, label=label)
        for colour, step, word in [*((c, step, "chosen") for c, step in chosen.items()), (ink, 1e-7, "the textbook's")]:
            axes.axvline(step, color=colour, lw=1, ls=":")
            axes.text(step, 2e-12, f"{word} ", color=colour, rotation=90, ha="right", va="bottom", fontsize=9)
        axes.set(xlabel="step h", ylabel="error of the derivative, relative")
        axes.set_ylim(1e-12, 1e2)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.18))
        return svg_of(figure)


# -- calibration ---------------------------------------------------------------------------------------------------

COLOURS = ("#2f74d0", "#c27b00", "#3a9a5b", "#c2418c")


def calibrated() -> dict[str, str]:
    """Return true errors against stated ones, and simulated rates against stated chances, by theme."""
    data = json.loads(calibration.RESULTS.read_text(encoding="utf-8"))
    return {theme: drawn_calibration(data, ink) for theme, ink in INKS.items()}


def drawn_calibration(data: dict[str, Any], ink: str) -> str:
    least = 1e-18
    with mpl.rc_context(style(ink)):
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        for (name, group), colour in zip(data["groups"].items(), COLOURS, strict=True):
            error, stated = np.maximum(np.array(group["points"][::2]).T, least)
            left.loglog(stated, error, ".", ms=3, color=colour, alpha=0.6, label=name)
        ends = (least, 10)
        left.plot(ends, ends, color=ink, lw=1)
        left.text(3e-3, 6e-3, "error = stated", color=ink, rotation=38, ha="right", va="bottom", fontsize=9)
        left.set(xlabel="stated uncertainty, relative", ylabel="true error, relative", xlim=(1e-17, 10), ylim=ends)
        left.legend(frameon=False, fontsize=9, loc="lower right", markerscale=3, handletextpad=0.1)
        names = list(dict.fromkeys(one["what"] for one in data["chances"]))
        for name, colour in zip(names, COLOURS, strict=False):
            rows = [one for one in data["chances"] if one["what"] == name]
            stated, runs, happened = (np.array([row[key] for row in rows]) for key in ("stated", "runs", "happened"))
            low, high = stats.beta.ppf(
                [[0.025], [0.975]], [happened, happened + 1], [runs - happened + 1, runs - happened]
            )
            rate = happened / runs
            spread = [rate - np.nan_to_num(low), high - rate]
            shift = 1 + 0.08 * (names.index(name) - 1)  # beside each other
            right.errorbar(
                stated * shift, rate, spread, fmt="o", ms=4, capsize=3, color=colour, label=textwrap.fill(name, 42)
            )
        right.plot((3e-3, 0.3), (3e-3, 0.3), color=ink, lw=1)
        right.set(xscale="log", yscale="log", xlabel="stated chance, at most", ylabel="simulated rate")
        right.legend(frameon=False, fontsize=9, loc="upper left")
        right.set_ylim(1e-3, 20)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        return svg_of(figure)


# -- growth --------------------------------------------------------------------------------------------------------


def grown() -> dict[str, str]:
    """Return the costs over parameters, batch, layers and blocks, by theme."""
    data = json.loads(growth.RESULTS.read_text(encoding="utf-8"))
    return {theme: drawn_growth(data["series"], ink) for theme, ink in INKS.items()}


def drawn_growth(series: dict[str, list[dict[str, Any]]], ink: str) -> str:
    costs = {"loop": "textbook loop (extrapolated)", "network": "Network, every coordinate", "screen": "screen"}
    costs |= {"loss": "one loss"}
    with mpl.rc_context(style(ink)):
        figure = Figure(figsize=(9, 6.2), layout="constrained")
        panels = figure.subplots(2, 2, sharey=True).ravel()
        for axes, (name, points) in zip(panels, ((n, p) for n, p in series.items() if n != "workers"), strict=True):
            for (cost, label), colour in zip(costs.items(), COLOURS, strict=True):
                for kind, line in (("tanh", "o-"), ("relu", "o--"), (None, "o-")):
                    own = [p for p in points if p.get("activation") == kind and cost in p]
                    if own:
                        x, y = zip(*((p["size"], p[cost]) for p in own), strict=True)
                        axes.loglog(x, y, line, ms=3.5, color=colour, label=label if line == "o-" else None)
            words = {"batch": "samples in the batch, 235,146 parameters", "layers": "hidden layers of 256 units"}
            axes.set_xlabel(words.get(name, name))
            if name in ("batch", "layers"):
                axes.set_xticks([p["size"] for p in points if p["activation"] == "tanh"])
                axes.xaxis.set_major_formatter("{x:.0f}")
                axes.xaxis.set_minor_formatter("")
                axes.xaxis.minorticks_off()
            axes.spines[["top", "right"]].set_visible(False)
        for axes in panels[::2]:
            axes.set_ylabel("seconds")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=4)
        return svg_of(figure)


# -- all -----------------------------------------------------------------------------------------------------------

INKS = {"light": "#24292f", "dark": "#d7dae0"}


def style(ink: str) -> dict[str, Any]:
    fixed = {"svg.fonttype": "none", "svg.hashsalt": "fastcheck", "font.size": 11, "font.family": "sans-serif"}
    return fixed | dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), ink)


def svg_of(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)", "", out.getvalue(), flags=re.DOTALL)


# -- the page ------------------------------------------------------------------------------------------------------

CHROMIUM = "chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars"


def photographed(result: Any, size: str) -> dict[str, bytes]:
    """Return photographs of the page that a report or a monitor saves, by theme; none where there is no Chromium."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        written = result.save(Path(folder) / "page.html")
        for theme, scheme in {"light": 1, "dark": 0}.items():
            shot, small = Path(folder) / f"{theme}.png", io.BytesIO()
            own = [f"--user-data-dir={folder}/{theme}", f"--blink-settings=preferredColorScheme={scheme}"]
            if shutil.which("chromium"):
                command = [*CHROMIUM.split(), *own, f"--window-size={size}", f"--screenshot={shot}", written.as_uri()]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
                Image.open(shot).convert("RGB").quantize(128).save(small, "png", optimize=True)
                found[theme] = small.getvalue()
    return found


def page() -> dict[str, bytes]:
    return photographed(digits(), "1080,860")


def monitored() -> dict[str, bytes]:
    """Return photographs of a training whose gradient goes wrong when a weight has grown."""
    net = digits_net((20,), batch=64)
    params = {name: block.copy() for name, block in net.params.items()}

    def gradient(params: dict[str, np.ndarray], *args: Any) -> dict[str, np.ndarray]:
        found = net.gradient(params, *args)
        return found | {"W2": 1.3 * found["W2"]} if np.abs(params["W1"]).max() > 0.9 else found

    monitor = fastcheck.Monitor(net.loss, gradient, overhead=0.9, on_wrong=lambda report: None)
    for _ in range(3000):
        for name, change in net.gradient(params, *net.args).items():
            params[name] -= 0.02 * change
        monitor.step(params, args=net.args)
    return photographed(monitor, "1080,760")


PICTURES: dict[str, Callable[[], dict[str, Any]]] = {
    "terminal": terminal,
    "certified": certified,
    "page": page,
    "monitor": monitored,
    "steps": steps,
    "calibration": calibrated,
    "growth": grown,
}


def main() -> None:
    """Draw all, or those that are named."""
    FOLDER.mkdir(exist_ok=True)
    with threadpool_limits(1):
        for name in sys.argv[1:] or PICTURES:
            make = PICTURES[name]
            for theme, made in make().items():
                path = FOLDER / f"{name}-{theme}.{'png' if isinstance(made, bytes) else 'svg'}"
                text = made if isinstance(made, bytes) else "\n".join(map(str.rstrip, made.splitlines())) + "\n"
                path.write_bytes(text if isinstance(text, bytes) else text.encode())
                print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
