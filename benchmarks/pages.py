"""The parts of the README and of the docs that are made of data: ``python -m benchmarks.pages`` writes them anew.

A part stands between ``<!-- NAME: made by ... -->`` and ``<!-- end of NAME -->``. A test holds the pages to what this
would write.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import statistics
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fastcheck
from benchmarks import calibration, growth, peers
from benchmarks.judgement import RESULTS, RIGHT

ROOT = Path(__file__).parents[1]
INDENT: Any = {"initial_indent": "    ", "subsequent_indent": "    ", "break_on_hyphens": False}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# -- the benchmark of judgement ------------------------------------------------------------------------------------


class Try(NamedTuple):
    """One answer, and what the same contender said of the right gradient of the same net with the same seed."""

    net: str
    parameters: int
    bug: str
    verdict: str
    block: bool
    coordinate: bool | None
    evaluations: int
    seconds: float
    beside: str

    @property
    def found(self) -> bool:
        """It calls the bug wrong, and not the right gradient as well."""
        return self.verdict == "alarm" and self.beside != "alarm"


def results() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text(encoding="utf-8")))


def tries(data: dict[str, Any], contender: str) -> list[Try]:
    return [
        Try(net["net"], net["parameters"], bug, *row, net["answers"][contender][RIGHT][seed][0])
        for net in data["nets"]
        for bug, rows in net["answers"].get(contender, {}).items()
        for seed, row in enumerate(rows)
    ]


def of(part: Iterable[Any], whole: Iterable[Any]) -> str:
    count, total = len(list(part)), len(list(whole))
    return f"{count}/{total}" if total else "-"


def tally(some: list[Try]) -> list[str]:
    """Return found, missed, cannot tell, void; false alarms; block and coordinate named."""
    bugs, right = [t for t in some if t.bug != RIGHT], [t for t in some if t.bug == RIGHT]
    found, single = [t for t in bugs if t.found], [t for t in bugs if t.found and t.coordinate is not None]
    return [
        of(found, bugs),
        str(sum(t.verdict == "pass" for t in bugs)),
        str(sum(t.verdict == "cannot tell" for t in bugs)),
        str(sum(t.verdict == "alarm" and not t.found for t in bugs)),
        of((t for t in right if t.verdict == "alarm"), right),
        of((t for t in found if t.block), found),
        of((t for t in single if t.coordinate), single),
    ]


def cost(some: list[Try]) -> list[str]:
    if not some:
        return ["-", "-"]
    seconds = statistics.median(t.seconds for t in some)
    return [
        f"{statistics.median(t.evaluations for t in some):,.0f}",
        f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}",
    ]


HEAD = ["found", "missed", "cannot tell", "void", "false alarms", "block named", "coordinate named"]


def checkers() -> str:
    data = results()
    largest = {name: max(t.parameters for t in tries(data, name)) for name in data["contenders"]}
    rows = ([name, call, f"{largest[name]:,}"] for name, call in data["contenders"].items())
    return table(["checker", "call, and rule where it has none", "largest net"], rows)


def overall() -> str:
    data = results()
    return table(["checker", *HEAD], ([name, *tally(tries(data, name))] for name in data["contenders"]))


def by_bug() -> str:
    data = results()
    kinds = dict.fromkeys(bug for net in data["nets"] for rows in net["answers"].values() for bug in rows)
    kinds.pop(RIGHT)
    rows = []
    for name in data["contenders"]:
        some = tries(data, name)
        planted = [[t for t in some if t.bug == kind] for kind in kinds]
        rows.append([name, *(of((t for t in these if t.found), these) for these in planted)])
    return table(["checker", *kinds], rows)


def by_net() -> str:
    data = results()
    parts = []
    for net in data["nets"]:
        rows = []
        for name in data["contenders"]:
            some = [t for t in tries(data, name) if t.net == net["net"]]
            if some:
                rows.append([name, *tally(some)[:6], *cost(some)])
        head = ["checker", *HEAD[:6], "evaluations", "seconds"]
        parts.append(f"### {net['net']}, {net['parameters']:,} parameters\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def conditions() -> str:
    return ran(results())


def ran(data: dict[str, Any]) -> str:
    own, packages = data["machine"], ", ".join(f"{name} {v}" for name, v in data["versions"].items())
    missing = f" Not installed, so left out: {', '.join(data['missing'])}." if data.get("missing") else ""
    where = f"{own['processor']}, {own['cores']} cores, Python {own['python']}"
    return f"Run on {data['date']}: {where}, {packages}.{missing}"


SHORT = (
    "textbook loop",
    "sampled loop",
    "torch gradcheck",
    "torch gradcheck, fast",
    "jax check_grads",
    "autograd check_grads",
    "scipy check_grad, random",
    "numdifftools",
    "fastcheck",
)


def short() -> str:
    data = results()
    largest = max(net["parameters"] for net in data["nets"])
    rows = []
    for name in SHORT:
        if name in data["contenders"]:
            some = tries(data, name)
            shown = f"**{name}**" if name == "fastcheck" else name
            rows.append([shown, *tally(some)[:6], cost([t for t in some if t.parameters == largest])[1]])
    return table(["checker", *HEAD[:6], f"seconds, {largest:,} parameters"], rows)


# -- calibration and growth ----------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def whence(data: dict[str, Any]) -> str:
    own = data["machine"]
    numpy = f"numpy {data['versions']['numpy']}"
    return f"Run on {data['date']}: {own['processor']}, {own['cores']} cores, Python {own['python']}, {numpy}."


def stated_errors() -> str:
    data = read(calibration.RESULTS)
    head = [
        "derivatives of",
        "measured",
        "error larger than stated",
        "largest error / stated",
        "stated / error, typical",
    ]
    rows = [
        [name, f"{g['derivatives']:,}", f"{g['larger']}", f"{g['worst']:.3g}", f"{g['median']:.0f}"]
        for name, g in data["groups"].items()
    ]
    return f"{table(head, rows)}\n\n{whence(data)}"


def stated_chances() -> str:
    rows = [
        [
            one["what"],
            f"{one['stated']:.0%}",
            f"{one['happened'] / one['runs']:.1%}",
            f"{one['happened']}/{one['runs']}",
        ]
        for one in read(calibration.RESULTS)["chances"]
    ]
    return table(["what", "stated, at most", "simulated", "runs"], rows)


def power(rows: list[dict[str, Any]], cost: str) -> str:
    """Return the power of the size with which a cost grows, for each activation where there are two."""
    kinds = dict.fromkeys(row.get("activation") for row in rows)
    found = []
    for kind in kinds:
        own = [row for row in rows if row.get("activation") == kind and cost in row]
        fitted = growth.exponent([row["size"] for row in own], [row[cost] for row in own]) if own else None
        found.append("-" if fitted is None else f"{round(fitted, 1) + 0.0:.1f}")
    return " / ".join(dict.fromkeys(found))


def exponents() -> str:
    data = read(growth.RESULTS)
    costs = {"loss": "one loss", "evaluations": "evaluations of a screen", "screen": "screen, time"}
    costs |= {"network": "`Network`, every coordinate", "loop": "textbook loop"}
    rows = [
        [name, *(power(points, cost) for cost in costs)] for name, points in data["series"].items() if name != "workers"
    ]
    return f"{table(['grows', *costs.values()], rows)}\n\n{whence(data)}"


def sizes() -> str:
    """Return the costs over every series of nets and blocks."""
    parts = []
    for name, points in read(growth.RESULTS)["series"].items():
        if name == "workers":
            continue
        rows = []
        for row in points:
            kind = [row["activation"]] if "activation" in row else []
            net = [f"{row['network']:.2g}", f"{row['loop']:,.3g}"] if "network" in row else []
            spent = [f"{row['bound']:.0e}", f"{row['screen']:.2g}", f"{row['screen'] / row['loss']:,.0f}"]
            rows.append([f"{row['size']:,}", *kind, f"{row['evaluations']}", *spent, *net])
        kind = ["net"] if "activation" in points[0] else []
        net = ["`Network`, seconds", "textbook loop, seconds"] if "network" in points[0] else []
        spent = ["evaluations of a screen", "its worst bound", "seconds", "in losses"]
        parts.append(f"**{name}**\n\n{table([name, *kind, *spent, *net], rows)}")
    return "\n\n".join(parts)


def workers() -> str:
    points = read(growth.RESULTS)["series"]["workers"]
    names = [name for name in points[0] if name != "size"]
    rows = [
        [str(row["size"]), *(f"{row[name]:.2g} s, {points[0][name] / row[name]:.2g}x" for name in names)]
        for row in points
    ]
    return table(["workers", *names], rows)


# -- fastcheck beside the checkers of the frameworks ---------------------------------------------------------------


def peer_rows(checker: str) -> list[tuple[dict[str, Any], list[Any]]]:
    """Return the subjects that a checker was asked about, each with its answer."""
    data = json.loads(peers.RESULTS.read_text(encoding="utf-8"))
    return [(row, row["answers"][checker]) for row in data["subjects"] if checker in row["answers"]]


def peer_names() -> list[str]:
    data = json.loads(peers.RESULTS.read_text(encoding="utf-8"))
    return list(dict.fromkeys(checker for row in data["subjects"] for checker in row["answers"]))


def peer_conditions() -> str:
    return ran(json.loads(peers.RESULTS.read_text(encoding="utf-8")))


def peer_summary() -> str:
    head = ["checker", "seen", "missed", "cannot tell", "false alarms", "named", "seconds, median"]
    rows = []
    for checker in peer_names():
        asked = peer_rows(checker)
        wrong = [(row, said) for row, said in asked if row["truth"] == peers.WRONG]
        right = [said for row, said in asked if row["truth"] == peers.RIGHT]
        placed = [(row, said) for row, said in wrong if row["blocks"] and peers.seen(said[0])]
        rows.append(
            [
                f"**{checker}**" if checker == "fastcheck" else checker,
                of((1 for _, said in wrong if peers.seen(said[0])), wrong),
                str(sum(said[0] == peers.RIGHT for _, said in wrong)),
                str(sum(said[0] == peers.UNTOLD for _, said in asked)),
                of((1 for said in right if peers.seen(said[0])), right),
                of((1 for row, said in placed if peers.names_it(row, said[1])), placed),
                seconds(statistics.median(said[2] for _, said in asked)),
            ]
        )
    return table(head, rows)


def peer_table() -> str:
    data = json.loads(peers.RESULTS.read_text(encoding="utf-8"))
    parts = []
    for group in dict.fromkeys(row["group"] for row in data["subjects"]):
        some = [row for row in data["subjects"] if row["group"] == group]
        checkers = list(dict.fromkeys(checker for row in some for checker in row["answers"]))
        rows = ([row["name"], row["truth"], *(said_of(row, name) for name in checkers)] for row in some)
        parts.append(f"### {group}\n\n{table(['', 'truth', *checkers], rows)}")
    return "\n\n".join(parts)


def said_of(row: dict[str, Any], checker: str) -> str:
    """Return a cell: the answer, bold where it is not true, the place that was named, and the seconds."""
    if checker not in row["answers"]:
        return "-"
    verdict, place, spent = row["answers"][checker]
    true = peers.seen(verdict) if row["truth"] == peers.WRONG else verdict == peers.RIGHT
    shown = verdict if true else f"**{verdict}**"
    where = f": `{place}`" if place and verdict == peers.WRONG else ""
    return f"{shown}{where}, {seconds(spent)}"


def seconds(value: float) -> str:
    return f"{1e3 * value:.2g} ms" if value < 0.1 else f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


# -- the catalogue of findings -------------------------------------------------------------------------------------


def findings() -> str:
    return table(
        ["kind", "what it says", "what to do"],
        ([f"`{kind.value}`", kind.meaning, kind.remedy] for kind in fastcheck.Kind),
    )


# -- the reference of the public names -----------------------------------------------------------------------------


def api() -> str:
    """Return all public names but the modules, functions first."""
    things = {name: getattr(fastcheck, name) for name in fastcheck.__all__ if name not in ("jax", "torch")}
    return "\n\n".join(entry(*item) for item in sorted(things.items(), key=lambda item: isinstance(item[1], type)))


def entry(name: str, thing: Any) -> str:
    """Return a public name's section: how it is called, and its docstring."""
    parts = [f"## {name}"]
    if not (isinstance(thing, type) and issubclass(thing, enum.Enum | Exception)):
        parts.append(f"```text\n{wrapped(called(name, thing))}\n```")
    parts.append(markdown(inspect.getdoc(thing) or ""))
    if isinstance(thing, type):
        methods = [(own, method) for own, method in sorted(vars(thing).items()) if inspect.isfunction(method)]
        parts.append("\n".join(f"- `{called(own, one)}`: {summary(one)}" for own, one in methods if own[0] != "_"))
    return "\n\n".join(filter(None, parts))


def summary(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def called(name: str, thing: Any) -> str:
    signature = inspect.signature(thing)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
    return f"{name}{signature.replace(parameters=bare, return_annotation=signature.empty)}"


def wrapped(call: str) -> str:
    """Return a call on several lines where it is long."""
    head, _, rest = call.partition("(")
    return call if len(call) < 76 else f"{head}(\n{textwrap.fill(rest[:-1], 76, **INDENT)}\n)"


def markdown(text: str) -> str:
    """Return a docstring of numpydoc's form as Markdown: its sections in bold, their entries as a list."""
    head, *sections = re.split(r"^(\w[\w ]*)\n-+\n", text, flags=re.MULTILINE)
    parts = [head.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        parts.append(f"**{title}**")
        if title in ("Notes", "Examples"):
            parts.append(body.strip() if title == "Notes" else f"```text\n{body.strip()}\n```")
            continue
        items = re.split(r"^(?=\S)", body.strip(), flags=re.MULTILINE)
        parts.append("\n".join(item_of(*item.strip().partition("\n")) for item in items if item.strip()))
    return "\n\n".join(parts)


def item_of(head: str, _: str, body: str) -> str:
    name, _, kind = head.partition(" : ")
    words = " ".join(body.split())
    return f"- `{name}`{f' ({kind})' if kind else ''}{f': {words}' if words else ''}"


# -- the pages -----------------------------------------------------------------------------------------------------

PARTS = {
    "README.md": {"judgement": short},
    "docs/judgement.md": {
        "conditions": conditions,
        "checkers": checkers,
        "overall": overall,
        "by bug": by_bug,
        "by net": by_net,
    },
    "docs/calibration.md": {"stated errors": stated_errors, "stated chances": stated_chances},
    "docs/growth.md": {"exponents": exponents, "sizes": sizes, "workers": workers},
    "docs/peers.md": {
        "peers, conditions": peer_conditions,
        "peers": peer_summary,
        "peers, one by one": peer_table,
    },
    "docs/findings.md": {"findings": findings},
    "docs/api.md": {"public names": api},
}


def renewed(page: str) -> str:
    """Return the text of a page with its parts made anew."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, make in PARTS[page].items():
        start, end = f"<!-- {name}: made by `python -m benchmarks.pages` -->", f"<!-- end of {name} -->"
        text, count = re.subn(
            f"{re.escape(start)}.*?{re.escape(end)}",
            lambda _, start=start, end=end, make=make: f"{start}\n\n{make()}\n\n{end}",
            text,
            flags=re.DOTALL,
        )
        if count != 1:
            raise ValueError(f"{page} has the part {name!r} {count} times")
    return text


def stale() -> Iterator[str]:
    """Yield the pages that differ from what would be written."""
    return (page for page in PARTS if renewed(page) != (ROOT / page).read_text(encoding="utf-8"))


def main() -> None:
    for page in stale():
        (ROOT / page).write_text(renewed(page), encoding="utf-8")
        print(f"wrote {page}")


if __name__ == "__main__":
    main()
