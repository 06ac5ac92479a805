"""Memory that an evaluation leaves is there for the next one."""

import os
import platform
import subprocess
import sys

import pytest

COUNTING = """
import os, pathlib, resource, sys
import numpy as np
import fastcheck

FOLDER, SEEN = pathlib.Path(sys.argv[1]), []


def loss(theta):
    SEEN.append((os.getpid(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt))
    here = [faults for pid, faults in SEEN if pid == os.getpid()]  # what was seen before travels with the loss
    if len(here) == 60:
        (FOLDER / str(os.getpid())).write_text(str((here[-1] - here[19]) // 40))
    grids = [np.sin(theta[k] + np.linspace(0.0, 1.0, 40_000)) for k in range(4)]
    return float(sum(grid.mean() for grid in grids))


def gradient(theta):
    g = np.zeros(len(theta))
    g[:4] = [np.cos(value + np.linspace(0.0, 1.0, 40_000)).mean() for value in theta[:4]]
    return g


if __name__ == "__main__":
    theta = np.linspace(0.5, 1.5, 120)
    report = fastcheck.check(loss, gradient, theta, mode="full", unchecked="allow", workers=2, backend=sys.argv[2])
    assert not report.verdict.refuted, report
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps it so")
@pytest.mark.parametrize("backend", ["serial", "processes"])
def test_an_evaluation_does_not_fault_for_its_temporaries_again(tmp_path, backend):
    """320 kB each, that is 80 pages; without `keep_freed_memory` a worker process faulted for most of them anew."""
    (script := tmp_path / "script.py").write_text(COUNTING)
    (told := tmp_path / "told").mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}  # Dask leaves one
    subprocess.run([sys.executable, script, told, backend], check=True, timeout=120, env=env)
    faults = [int(path.read_text()) for path in told.iterdir()]
    assert faults
    assert max(faults) < 20
