"""The report as versioned JSON, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck.errors import InputError, said
from fastcheck.findings import Finding, Kind
from fastcheck.judge.verdict import Verdict
from fastcheck.parameters import ROOT, leaves
from fastcheck.report.report import BlockReport, Coordinate, Report, Sweep, Taylor, write_text
from fastcheck.report.words import legible

__all__ = ["FORMAT", "VERSION", "from_dict", "read", "to_dict", "write"]

FORMAT = "fastcheck-report"
VERSION = 1
NUMERICAL_UP_TO = 20_000  # coordinates of a numerical gradient that are written out

DEEPEST = 70  # a gradient of 64 axes, and what it stands in
SCHEMA = Path(__file__).with_name("report.schema.json")

_COUNTS = ("evaluations", "size", "checked", "wrong", "kinks")
_SCALARS = ("difference", "uncertainty", "bound", "coverage", "evaluations", "seconds")
_BLOCK_SCALARS = ("size", "checked", "difference", "bound", "uncertainty", "detectable", "wrong", "kinks")


def to_dict(report: Report) -> dict[str, Any]:
    """Return the report as plain data; NaN and infinities become the strings "nan", "inf", "-inf"."""
    data: dict[str, Any] = {"format": FORMAT, "version": VERSION, "verdict": report.verdict.value}
    data |= {name: getattr(report, name) for name in _SCALARS}
    data["passed"] = report.passed
    data["blocks"] = {
        name: {"shape": list(block.shape), "verdict": block.verdict.value}
        | {key: getattr(block, key) for key in _BLOCK_SCALARS}
        for name, block in report.blocks.items()
    }
    data["wrong"] = [{**vars(c), "index": list(c.index)} for c in report.wrong]
    data["findings"] = [
        {"kind": f.kind, "block": f.block, "message": f.message, "evidence": dict(f.evidence)} for f in report.findings
    ]
    data["settings"] = dict(report.settings)
    if report.taylor is not None:
        data["taylor"] = vars(report.taylor)
    if report.sweep is not None:
        data["sweep"] = vars(report.sweep)
    if report.numerical is not None and report.size <= NUMERICAL_UP_TO:
        named = ((".".join(path) or ROOT, np.asarray(leaf)) for path, leaf in leaves(report.numerical))
        parts = (part for name, array in named for part in _parts(name, array))
        data["numerical"] = {name: array.tolist() for name, array in parts}
    plain = _plain(data)
    assert isinstance(plain, dict)
    return plain


def from_dict(data: Mapping[str, Any]) -> Report:
    """Return the report of such data; its ``numerical`` is a dict of arrays by block name.

    Raises
    ------
    InputError
        The data are not a report, or of a newer version; the message names the field.
    """
    if data.get("format") != FORMAT:
        raise InputError(f"format={_brief(repr(data.get('format')))}: not a fastcheck report.")
    if data.get("version") != VERSION:
        found = _brief(repr(data.get("version")))
        raise InputError(f"version={found}: this fastcheck reads version {VERSION}. Upgrade fastcheck.")
    _validate(data)
    return _from_dict(data)


def _validate(data: Mapping[str, Any]) -> None:
    """Raise unless the data obey the schema, and fit together."""
    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    error = next(Draft202012Validator(schema).iter_errors(data), None)
    if error is not None:
        raise _damaged(error.json_path, error.instance, error.message)
    blocks = data["blocks"]
    for name, block in blocks.items():
        if math.prod(block["shape"]) != block["size"]:
            raise _damaged(f"$.blocks[{name!r}].size", block["size"], "the shape has another size")
    for number, one in enumerate(data["wrong"]):
        if not _inside(one["index"], blocks.get(one["block"], {}).get("shape")):
            raise _damaged(f"$.wrong[{number}]", one, "there is no such block, or no such index in it")
    sweep = data.get("sweep")
    if sweep is not None:
        if not _inside(sweep["index"], blocks.get(sweep["block"], {}).get("shape")):
            raise _damaged("$.sweep", sweep, "there is no such block, or no such index in it")
        if len({len(sweep[key]) for key in ("steps", "derivatives", "rounding")}) > 1:
            raise _damaged("$.sweep", sweep, "its lists are of unlike lengths")
    for number, finding in enumerate(data["findings"]):
        if finding["kind"] not in set(Kind):
            raise _damaged(f"$.findings[{number}].kind", finding["kind"], "there is no such kind of finding")
    for name, numbers in data.get("numerical", {}).items():
        if name not in blocks or not _fits(numbers, blocks[name]["shape"]):
            raise _damaged(f"$.numerical[{name!r}]", numbers, "there is no such block, or it has another shape")


def _inside(index: Sequence[int], shape: Sequence[int] | None) -> bool:
    if shape is None or len(shape) != len(index):
        return False
    return all(i < n for i, n in zip(index, shape, strict=True))


def _fits(numbers: Any, shape: Sequence[int]) -> bool:
    if not shape:
        return not isinstance(numbers, list)
    return isinstance(numbers, list) and len(numbers) == shape[0] and all(_fits(part, shape[1:]) for part in numbers)


def _damaged(field: str, value: Any, why: str) -> InputError:
    return InputError(f"the report is damaged at {_brief(field)}={_brief(repr(value))}: {_brief(why)}.")


def _brief(text: str) -> str:
    return legible(text, 120)


def _from_dict(data: Mapping[str, Any]) -> Report:
    blocks = {
        name: BlockReport(
            shape=tuple(map(int, block["shape"])),
            verdict=_verdict(block["verdict"]),
            **{key: _scalar(block, key) for key in _BLOCK_SCALARS},
        )
        for name, block in data["blocks"].items()
    }
    wrong = tuple(
        Coordinate(
            c["block"], tuple(map(int, c["index"])), *(float(c[k]) for k in ("analytic", "numerical", "uncertainty"))
        )
        for c in data["wrong"]
    )
    numerical, taylor, sweep = data.get("numerical"), data.get("taylor"), data.get("sweep")
    return Report(
        verdict=_verdict(data["verdict"]),
        blocks=blocks,
        wrong=wrong,
        findings=tuple(Finding(**{**finding, "kind": Kind(finding["kind"])}) for finding in data["findings"]),
        settings=data["settings"],
        numerical=None
        if numerical is None
        else {k: np.array(_numbers(v), dtype=float).reshape(blocks[k].shape) for k, v in numerical.items()},
        taylor=None
        if taylor is None
        else Taylor(float(taylor["order"]), *(tuple(_numbers(taylor[k])) for k in ("steps", "remainders"))),
        sweep=None
        if sweep is None
        else Sweep(
            sweep["block"],
            tuple(map(int, sweep["index"])),
            *(tuple(_numbers(sweep[k])) for k in ("steps", "derivatives", "rounding")),
        ),
        **{key: _scalar(data, key) for key in _SCALARS},
    )


def _scalar(data: Mapping[str, Any], name: str) -> Any:
    return int(data[name]) if name in _COUNTS else float(data[name])


def write(report: Report, path: Path) -> None:
    """Write the report; the file is complete or not there.

    Raises
    ------
    InputError
        The file can't be written.
    """
    write_text(path, json.dumps(to_dict(report), indent=1, allow_nan=False) + "\n")


def read(path: Path) -> Report:
    """Read a report.

    Raises
    ------
    InputError
        There is no such file, or it is no report.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
        json.dumps(data, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
    except FileNotFoundError as error:
        raise InputError(f"path={str(path)!r}: no such file.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"path={str(path)!r} is not a fastcheck report: {_brief(said(error))}.") from error
    if not isinstance(data, dict):
        raise InputError(f"path={str(path)!r} is not a fastcheck report.")
    if _depth(data) > DEEPEST:
        raise InputError(f"path={str(path)!r} is not a fastcheck report: it is nested more than {DEEPEST} deep.")
    return from_dict(data)


def _parts(name: str, array: np.ndarray[Any, Any]) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Return an array by the name of its block; a complex one has a block for each part."""
    return [(f"{name}.real", array.real), (f"{name}.imag", array.imag)] if np.iscomplexobj(array) else [(name, array)]


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON; a report writes it as text")


def _depth(data: Any) -> int:
    """Return how many containers are inside each other, at most."""
    level, depth = [data], 0
    while level:
        depth += 1
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for items in inner for item in items]
    return depth


def _plain(value: Any) -> Any:
    """Return the value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _verdict(key: str) -> Verdict:
    return next(verdict for verdict in Verdict if verdict.value == key)


def _numbers(value: Any) -> Any:
    return [_numbers(item) for item in value] if isinstance(value, list) else float(value)
