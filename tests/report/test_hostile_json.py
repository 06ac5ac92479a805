"""Files that say they are reports: every one is read, or refused with the field that is wrong; none is a traceback."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

import fastcheck
from fastcheck.cli import main
from fastcheck.errors import InputError
from fastcheck.report.jsonfile import SCHEMA
from tests.parallel import losses

HOSTILE = {
    "null": None,
    "text": "wrong",
    "empty": "",
    "true": True,
    "minus": -1,
    "fraction": 0.5,
    "long": 10**4000,
    "large": 1e308,
    "inf": "inf",
    "list": [],
    "lists": [[[]]],
    "object": {},
    "escape": "\x1b[2J\n",
    "text in a list": ["x", None, 3],
}


def wrong(params):
    return {"W": losses.gradient(params)["W"] * (1 + (np.arange(120).reshape(10, 12) == 30))}


@pytest.fixture(scope="module")
def reports():
    full = fastcheck.check(losses.loss, wrong, losses.PARAMS, mode="full")
    right = fastcheck.check(losses.loss, losses.gradient, losses.PARAMS, mode="screen")
    return [full.to_dict(), right.to_dict()]


def fields(data, path=()):
    """Yield the paths of all fields; of a list, its first two."""
    items = data.items() if isinstance(data, dict) else enumerate(data[:2]) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from fields(value, (*path, key))


def changed(data, path, value):
    found = copy.deepcopy(data)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    if value is Ellipsis:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return found


def taken(folder, data, *options):
    """Return the exit status of the command, which must not have crashed, and what it said."""
    path = folder / "run.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    result = CliRunner().invoke(main, ["report", str(path), *options])
    assert result.exit_code in (0, 1, 2, 3), (result.exit_code, result.output[-2000:])
    assert (result.exit_code == 2) is ("fastcheck: " in result.stderr)
    return result.exit_code, result.stderr


def test_what_is_saved_obeys_the_schema(reports):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    for data in reports:
        Draft202012Validator(schema).validate(data)
        again = fastcheck.Report.to_dict(read(data))
        assert again == data


def read(data):
    from fastcheck.report.jsonfile import from_dict

    return from_dict(json.loads(json.dumps(data)))


@pytest.mark.slow
def test_every_field_replaced_by_every_hostile_value(reports, tmp_path):
    tried, refused = 0, 0
    for data in reports:
        for path in fields(data):
            for value in (*HOSTILE.values(), ...):
                status, said = taken(tmp_path, changed(data, path, value))
                tried, refused = tried + 1, refused + (status == 2)
                assert status != 2 or "damaged at $" in said or path[0] in ("format", "version"), (path, value, said)
    assert tried > 2000, tried
    assert refused > tried / 2
    print(tried, refused)


@pytest.mark.slow
def test_pages_of_hostile_reports(reports, tmp_path):
    rng = np.random.default_rng(0)
    for data in reports:
        paths = list(fields(data))
        for k in rng.permutation(len(paths)).tolist()[:40]:
            for value in HOSTILE.values():
                taken(tmp_path, changed(data, paths[k], value), "--html", str(tmp_path / "run.html"))


@pytest.mark.parametrize(
    "path, value, field",
    [
        (("difference",), None, "$.difference=None"),
        (("blocks", "W", "size"), "many", "$.blocks.W.size='many'"),
        (("blocks", "W", "size"), 7, "$.blocks['W'].size=7"),
        (("blocks", "W", "shape"), [10, -12], "$.blocks.W.shape[1]=-12"),
        (("blocks", "W", "verdict"), "fine", "$.blocks.W.verdict='fine'"),
        (("wrong", 0, "block"), "V", "$.wrong[0]="),
        (("wrong", 0, "index"), [10, 0], "$.wrong[0]="),
        (("wrong", 0, "analytic"), [1], "$.wrong[0].analytic=[1]"),
        (("findings", 0, "message"), 3, "$.findings[0].message=3"),
        (("findings", 0, "evidence"), {"blocks": None}, "$.findings[0].evidence.blocks=None"),
        (("settings",), None, "$.settings=None"),
        (("settings", "confidence"), "often", "$.settings.confidence='often'"),
        (("numerical", "W"), [1.0], "$.numerical['W']="),
        (("evaluations",), 10**4000, "$.evaluations="),
        (("uncertainty",), 10**400, "$.uncertainty="),
        (("verdict",), ..., "$="),
        (("version",), 2, "version=2"),
        (("format",), ["x" * 5000], "format="),
    ],
)
def test_the_field_is_named(reports, tmp_path, path, value, field):
    status, said = taken(tmp_path, changed(reports[0], path, value))
    assert status == 2
    assert field in said
    assert len(said) < 600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        "\0",
        '{"format": "fastcheck-report", "version": 1}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 900 + "]" * 900,
        '{"settings": ' + "[" * 200 + "]" * 200 + "}",
        '{"format": "fastcheck-report", "version": ' + "1" * 5000 + "}",
        '{"format": "fastcheck-report", "version": NaN}',
        '{"format": "\\ud800"}',
        '{"format": "\\ud800", "version": 1e999}',
    ],
    ids=range(14),
)
def test_texts_that_are_no_report(tmp_path, text):
    assert taken(tmp_path, text)[0] == 2
    with pytest.raises(InputError):
        fastcheck.Report.load(tmp_path / "run.json")


@pytest.mark.slow
def test_bytes_changed_at_random(reports, tmp_path):
    rng = np.random.default_rng(1)
    text = json.dumps(reports[0])
    for _ in range(500):
        data = bytearray(text.encode())
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(0, 256)
        (tmp_path / "run.json").write_bytes(bytes(data))
        result = CliRunner().invoke(main, ["report", str(tmp_path / "run.json")])
        assert result.exit_code in (0, 1, 2, 3), result.output[-2000:]
