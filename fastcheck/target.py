"""``FILE.py[:NAME]``: the problem that a file defines."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcheck.errors import InputError, said
from fastcheck.problem import Problem
from fastcheck.settings import as_args

__all__ = ["load_problem"]


def load_problem(target: str) -> Problem:
    """Return the problem that FILE.py[:NAME] defines.

    Raises
    ------
    InputError
        The file does not exist, does not run, or does not define what is needed.
    """
    file, _, name = target.rpartition(":") if ".py:" in target else (target, "", "")
    path = Path(file)
    names = _run_file(path)
    if name:
        return _named(names, name, path)
    if isinstance(names.get("problem"), Problem):
        return names["problem"]  # type: ignore[no-any-return]
    missing = [wanted for wanted in ("loss", "gradient", "params") if wanted not in names]
    if missing:
        raise InputError(
            f"{path} defines no {' and no '.join(missing)}. It needs loss(params, *args), gradient (a function, a "
            f"tree, or True where loss returns both) and params; or name a fastcheck.Problem in it: {path}:NAME."
        )
    return Problem(names["loss"], names["gradient"], names["params"], as_args(names.get("args", ())), name=path.stem)


def _run_file(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError(f"FILE={str(path)!r}: no such file.")
    # A file called like a loaded module (random.py, fastcheck.py) must not take that module's place.
    name = path.stem if path.stem not in sys.modules else f"_checked_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"FILE={str(path)!r} is not a Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that what it defines can be sent to worker processes
    sys.path.insert(0, str(path.resolve().parent))
    sys.argv = [str(path)]  # the options of this command are not for the file
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{path} does not parse: line {error.lineno}: {error.msg}.") from error
    except (Exception, SystemExit) as error:  # a file that exits would otherwise decide the exit status
        raise InputError(f"{path} raised {said(error, ' when it was run')}") from error
    return vars(module)


def _named(names: Mapping[str, Any], name: str, path: Path) -> Problem:
    if name not in names:
        known = [key for key, value in names.items() if isinstance(value, Problem)]
        raise InputError(f"{path} defines no {name!r}." + (f" It has {', '.join(known)}." if known else ""))
    value = names[name]
    if callable(value) and not isinstance(value, Problem):
        try:
            value = value()
        except (Exception, SystemExit) as error:
            raise InputError(f"{path}:{name} raised {said(error)}") from error
    if not isinstance(value, Problem):
        raise InputError(
            f"{path}:{name} is of type {type(value).__name__}; it must be a fastcheck.Problem, or a function "
            "that returns one."
        )
    return value
