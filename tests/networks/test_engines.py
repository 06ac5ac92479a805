"""Each engine against the other and against central differences in 60 digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcheck.differences import Status
from fastcheck.networks import Dense, Network
from fastcheck.parameters import Parameters

from . import naive
from .nets import Case, dense, smooth_cases

CASES = list(smooth_cases())


def measured(case: Case, **options):
    layout = Parameters.of(case.params)
    found = case.net.bind(case.x, case.y).measure(layout.flatten(case.params), layout, **options)
    return layout, found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_equals_the_naive_twin(case):
    expected = naive.loss(case.net, {n: naive.exact(v) for n, v in case.params.items()}, _data(case), case.y)
    assert case.net.bind(case.x, case.y)(case.params) == pytest.approx(float(expected), rel=1e-13)


def _data(case):
    return case.x if case.x.dtype.kind == "i" else naive.exact(case.x)


@pytest.mark.parametrize("engine", ["unit", "coordinate"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_sixty_digits(case, engine):
    layout, found = measured(case, engine=engine)
    truth = layout.flatten(naive.gradient(case.net, case.params, case.x, case.y))
    assert np.linalg.norm(found.value - truth) <= 1e-14 * np.linalg.norm(truth)
    for block in layout.blocks:
        part = block.slice
        assert np.linalg.norm(found.value[part] - truth[part]) <= 1e-12 * np.linalg.norm(truth[part]) + 1e-14 * np.linalg.norm(truth)
    assert (np.abs(found.value - truth) <= found.uncertainty + 1e-18).all()
    assert (found.status == Status.SMOOTH).all()
    assert np.isnan(found.left).all()
    # The uncertainty is of use: far below what a grade asks for.
    assert np.linalg.norm(found.uncertainty) <= 1e-11 * np.linalg.norm(truth)
