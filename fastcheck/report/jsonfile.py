"""The report as versioned JSON, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastcheck.errors import InputError
from fastcheck.findings import Finding, Kind
from fastcheck.parameters import ROOT, leaves
from fastcheck.report.files import write_text
from fastcheck.report.report import BlockReport, Coordinate, Report, Taylor
from fastcheck.verdict import Verdict

__all__ = ["FORMAT", "VERSION", "from_dict", "read", "to_dict", "write"]

FORMAT = "fastcheck-report"
VERSION = 1
NUMERICAL_UP_TO = 20_000  # coordinates of a numerical gradient that are written out

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
        The data are not a report, or of a newer version.
    """
    if data.get("format") != FORMAT:
        raise InputError(f"format={data.get('format')!r}: not a fastcheck report.")
    if data.get("version") != VERSION:
        raise InputError(f"version={data.get('version')!r}: this fastcheck reads version {VERSION}. Upgrade fastcheck.")
    try:
        return _from_dict(data)
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise InputError(f"the report is damaged: {type(error).__name__}: {error}.") from error


def _from_dict(data: Mapping[str, Any]) -> Report:
    blocks = {
        name: BlockReport(
            shape=tuple(block["shape"]),
            verdict=_verdict(block["verdict"]),
            **{k: _number(block[k]) for k in _BLOCK_SCALARS},
        )
        for name, block in data["blocks"].items()
    }
    wrong = tuple(
        Coordinate(c["block"], tuple(c["index"]), *(_number(c[k]) for k in ("analytic", "numerical", "uncertainty")))
        for c in data["wrong"]
    )
    numerical, taylor = data.get("numerical"), data.get("taylor")
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
        else Taylor(_number(taylor["order"]), *(tuple(_numbers(taylor[k])) for k in ("steps", "remainders"))),
        **{name: _number(data[name]) for name in _SCALARS},
    )


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
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"path={str(path)!r}: no such file.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"path={str(path)!r} is not a fastcheck report: {error}.") from error
    if not isinstance(data, dict):
        raise InputError(f"path={str(path)!r} is not a fastcheck report.")
    return from_dict(data)


def _parts(name: str, array: np.ndarray[Any, Any]) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """Return an array by the name of its block; a complex one has a block for each part."""
    return [(f"{name}.real", array.real), (f"{name}.imag", array.imag)] if np.iscomplexobj(array) else [(name, array)]


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


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _numbers(value: Any) -> Any:
    return [_numbers(item) for item in value] if isinstance(value, list) else _number(value)
