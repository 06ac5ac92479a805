"""A disk that is full, on a real file system of a few pages; and names that no file system takes."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 - its BLAS is loaded before threads are counted
from threadpoolctl import ThreadpoolController

import fastcheck
from fastcheck.errors import InputError
from tests.parallel import losses
from tests.parallel.test_bits import same


@pytest.fixture
def small(tmp_path):
    """Return a function that mounts a file system of so many KiB."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"small{len(mounted)}"
        folder.mkdir()
        options = f"size={size}k,mode=700"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
        if done.returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(folder)
        return folder

    try:
        yield mount
    finally:
        for folder in mounted:
            subprocess.run(["umount", "-l", folder], check=True)


def threads():
    return {pool["filepath"]: pool["num_threads"] for pool in ThreadpoolController().info()}


PARAMS = {"W": np.linspace(0.1, 1.0, 2000).reshape(40, 50)}  # 50 KB of records


def run(path, **options):
    loss = lambda params: float(np.sin(params["W"]).sum())  # noqa: E731
    gradient = {"W": np.cos(PARAMS["W"])}
    return fastcheck.check(loss, gradient, PARAMS, mode="full", checkpoint=path, **{"backend": "serial", **options})


def said(report):
    """Return the findings about the checkpoint, and the report without."""
    lost = [finding for finding in report.findings if finding.kind == "checkpoint_lost"]
    return lost, replace(report, findings=tuple(finding for finding in report.findings if finding not in lost))


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_a_run_whose_disk_is_full_goes_on_without_its_checkpoint(small, backend):
    folder = small(24)
    (folder / "filler").write_bytes(bytes(4096 * 2))
    before = threads()
    (finding,), report = said(run(folder / "run", backend=backend))
    assert threads() == before
    whole = run(None)
    same(whole, report)
    assert "No space left" in finding.message
    lost, report = said(run(small(256) / "run", backend=backend))
    same(whole, report)
    assert not lost


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 12))])
def test_what_was_written_before_the_disk_was_full_is_resumed(small, seed):
    folder, rng = small(96), np.random.default_rng(seed)
    (folder / "filler").write_bytes(bytes(int(rng.integers(4096 * 17, 4096 * 23))))
    lost, report = said(run(folder / "run"))
    whole = run(None)
    same(whole, report)
    assert lost
    before = (folder / "run").stat().st_size
    (folder / "filler").unlink()
    lost, report = said(run(folder / "run"))
    same(whole, report)
    assert not lost
    assert (folder / "run").stat().st_size > before


def test_no_room_for_the_header_is_bad_input(small):
    folder = small(4)
    (folder / "filler").write_bytes(bytes(4096))
    before = threads()
    with pytest.raises(InputError, match=r"can't be written.*No space left"):
        run(folder / "run")
    assert os.listdir(folder) == ["filler"]
    assert threads() == before


def test_no_room_for_the_loss_of_the_workers(small, monkeypatch):
    folder = small(8)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    data = np.zeros(100_000)
    loss = lambda params: losses.loss(params) + data[0]  # noqa: E731
    options = {"mode": "full", "backend": "multiprocessing", "workers": 2}
    with pytest.raises(InputError, match="No space left"):
        fastcheck.check(loss, losses.gradient, losses.PARAMS, **options)
    assert os.listdir(folder) == []


def test_a_report_that_does_not_fit_leaves_nothing(small):
    folder = small(4)
    with pytest.raises(InputError, match=r"can't be written: No space left"):
        run(None).save(folder / "run.json")
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    "name",
    ["x" * 256, "x" * 5000, "a\0b", "file/run", "file/deeper/run", "loop/run", "nowhere/run", "", "."],
)
def test_a_name_that_no_file_can_have_is_bad_input(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match=r"(?s)checkpoint=.*Name a file in a folder you own"):
        run(name)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("name", ["x" * 255, "é" * 120, "\udcff", " run ", "-run", "run\n"])
def test_a_name_that_a_file_can_have_is_taken(tmp_path, name):
    report = run(tmp_path / name)
    assert os.listdir(tmp_path) == [name]
    same(report, run(tmp_path / name))


def test_a_loss_that_changes_the_folder_does_not_take_the_checkpoint_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def loss(params):
        os.chdir(tmp_path / "elsewhere")
        return losses.loss(params)

    fastcheck.check(loss, losses.gradient, losses.PARAMS, mode="full", checkpoint="run")
    assert (tmp_path / "run").exists()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_threads_count_each_evaluation_once(tmp_path):
    def once(path, backend):
        options = {"mode": "full", "backend": backend, "workers": 4, "checkpoint": path}
        return fastcheck.check(losses.loss, losses.gradient, losses.PARAMS, **options).evaluations

    expected = once(None, "serial")
    for k in range(5):
        assert once(tmp_path / str(k), "threads") == expected
        assert once(tmp_path / str(k), "serial") == expected
