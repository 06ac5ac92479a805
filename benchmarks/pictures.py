"""The pictures of the README and the docs, each drawn from a run: ``python -m benchmarks.pictures``.

``docs/pictures/terminal-*.svg`` is what the command prints about a net with a bug; ``docs/pictures/steps-*.svg`` is the
error of a difference quotient over its step. Both for a light and for a dark page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from threadpoolctl import threadpool_limits

import fastcheck
from benchmarks.judgement import NETS
from fastcheck.examples import digits_net
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


def terminal() -> dict[str, str]:
    """Return the picture of the command's answer about the digits with a forgotten regulariser, by theme."""
    net, command = digits_net((32,), bug="missing_l2"), "fastcheck check digits.py --mode full"
    report = fastcheck.check(net.loss, net.gradient, net.params, args=net.args, mode="full", workers=1)
    report = replace(report, settings={**report.settings, "command": command})  # as the command itself notes it
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
    return {
        "light": drawn(curves, chosen, "#24292f"),
        "dark": drawn(curves, chosen, "#d7dae0"),
    }


def drawn(curves: list[tuple[str, np.ndarray, str, str]], chosen: dict[str, float], ink: str) -> str:
    style = {"svg.fonttype": "none", "svg.hashsalt": "fastcheck", "font.size": 11, "font.family": "sans-serif"}
    colours = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), ink)
    with mpl.rc_context(style | colours):
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
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)", "", out.getvalue(), flags=re.DOTALL)


PICTURES: dict[str, Callable[[], dict[str, str]]] = {"terminal": terminal, "steps": steps}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with threadpool_limits(1):
        for name, make in PICTURES.items():
            for theme, svg in make().items():
                path = FOLDER / f"{name}-{theme}.svg"
                path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")
                print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
