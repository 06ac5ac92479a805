"""The benchmarks of calibration and growth: what they count is what happened, and their committed results hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks import calibration, growth, guard
from benchmarks.pages import read


def test_a_stated_error_that_is_too_small_is_counted(monkeypatch):
    monkeypatch.setattr(calibration, "errors", lambda case, seed: (np.array([2.0, 1.0, 0.0]), np.array([1.0, 10.0, 1])))
    (case,) = [*calibration.of_functions(1)][:1]
    counted = calibration.group(iter([case]))
    assert (counted["derivatives"], counted["larger"], counted["worst"]) == (3, 1, 2.0)
    assert len(counted["points"]) == 3


@pytest.mark.parametrize("name", calibration.GROUPS)
def test_stated_errors_hold_in_a_few(name):
    counted = calibration.group(calibration.GROUPS[name](1, 2))
    assert counted["derivatives"] > 40
    assert counted["larger"] == 0


def test_backward_passes_in_extended_precision_are_those_of_float64():
    (case,) = calibration.of_nets(1, lambda loss: loss)
    net = calibration.random_net(0)
    own = calibration.Parameters.of(net.params).flatten(
        {name.removeprefix("d"): part for name, part in net.gradient(net.params, *net.args).items()}
    )
    assert 0 < np.abs(own - case.truth).max() < 1e-14 * np.abs(own).max()


def test_the_committed_rates_are_no_larger_than_stated():
    for one in read(calibration.RESULTS)["chances"]:
        assert stats.binom.sf(one["happened"] - 1, one["runs"], one["stated"]) > 1e-3, one["what"]


def test_the_committed_errors_hold():
    for name, one in read(calibration.RESULTS)["groups"].items():
        assert one["larger"] == 0, name


def test_a_power_is_fitted_to_the_larger_half():
    sizes = [1, 2, 4, 8, 16, 32]
    assert growth.exponent(sizes, [7, 7, 7, 64, 256, 1024]) == pytest.approx(2.0)
    assert growth.exponent(sizes[:2], [1, 2]) == pytest.approx(1.0)


@pytest.mark.slow
def test_growth_measures_the_smallest_of_each_series():
    rows = [growth.of_blocks(10), growth.of_net(*growth.NETS["parameters"][0], "tanh")]
    assert all(row["passed"] and row["evaluations"] < 100 for row in rows)
    assert rows[1]["parameters"] == rows[1]["size"] == 1050
    assert all(row[cost] > 0 for row in rows for cost in ("loss", "screen"))
    assert rows[1]["loop"] > rows[1]["loss"]


def test_the_committed_growth_is_of_right_gradients_whose_screens_do_not_grow():
    series = read(growth.RESULTS)["series"]
    assert set(series) == {*growth.NETS, "blocks", "workers"}
    for name, rows in series.items():
        if name != "workers":
            assert all(row["passed"] for row in rows)
            assert max(row["evaluations"] for row in rows) < 100


def test_a_lost_ratio_ends_the_guard_with_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(guard, "judgement", lambda: [("held", 2.0, 1.0)])
    monkeypatch.setattr(guard, "speed", lambda: [("gone", 0.5, 1.0)])
    assert guard.main() == 1
    assert "LOST gone: 0.5, at least 1" in capsys.readouterr().out
    monkeypatch.setattr(guard, "speed", lambda: [])
    assert guard.main() == 0
