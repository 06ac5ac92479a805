"""The screen of small losses: what it certifies, what it refuses, what it costs."""

import numpy as np
import pytest

import fastcheck
from fastcheck import InputError, Verdict
from fastcheck.examples import digits_net, mlp
from tests.strategies.losses import planted, smooth


def screen(loss, gradient, params, **options):
    return fastcheck.check(loss, gradient, params, mode="screen", **options)


def test_a_correct_gradient_is_certified_block_by_block():
    loss, gradient, params = smooth()
    report = screen(loss, gradient, params)
    assert report.verdict is Verdict.CORRECT
    assert all(block.bound <= 1e-6 for block in report.blocks.values())
    assert report.bound <= max(block.bound for block in report.blocks.values())
    assert all(block.checked == 0 for block in report.blocks.values())
    assert report.coverage == 0
    assert "every block of this 201-parameter gradient is right to" in str(report)
    assert report.evaluations <= 10 + 8 * 3


def test_the_bound_holds():
    loss, gradient, params = smooth()
    nudge = np.random.default_rng(1).standard_normal((12, 9))
    nudge *= 3e-8 / np.linalg.norm(nudge)

    for seed in range(20):
        wrong = planted(gradient, params, lambda tree: tree["W"].__iadd__(nudge * np.linalg.norm(tree["W"])))
        report = screen(loss, wrong, params, seed=seed, tolerance=1e-6)
        assert report.blocks["W"].bound >= 3e-8


def test_the_same_seed_gives_the_same_report_and_another_seed_another():
    loss, gradient, params = smooth()
    a, b, c = (screen(loss, gradient, params, seed=seed) for seed in (4, 4, 5))
    assert a.settings["directions"] == b.settings["directions"] != c.settings["directions"]
    assert a.blocks == b.blocks


@pytest.mark.parametrize("name", ["W", "V", "b"])
def test_only_the_wrong_block_is_called_wrong(name):
    loss, gradient, params = smooth()
    wrong = planted(gradient, params, lambda tree: tree[name].__imul__(-1))
    report = screen(loss, wrong, params)
    assert report.verdict is Verdict.WRONG
    assert [key for key, block in report.blocks.items() if not block.verdict.passed] == [name]


def test_only_the_chosen_blocks_are_screened():
    loss, gradient, params = smooth()
    report = screen(loss, gradient, params, blocks=["W", "b"])
    assert report.blocks["V"].verdict is Verdict.INCONCLUSIVE
    assert report.blocks["W"].verdict is Verdict.CORRECT
    assert report.passed


def test_an_error_below_the_tolerance_is_said_and_passes():
    loss, gradient, params = smooth()
    wrong = planted(gradient, params, lambda tree: tree["W"].__imul__(1 + 2e-5))
    report = screen(loss, wrong, params, tolerance=1e-3)
    assert report.passed
    assert any(f.kind == "below_tolerance" and f.block == "W" for f in report.findings)


def test_a_block_that_the_loss_does_not_use_is_right_without_a_gradient():
    loss, gradient, params = smooth()
    params["idle"] = np.ones((3, 3))
    report = screen(loss, lambda p: gradient(p) | {"idle": np.zeros((3, 3))}, params)
    assert report.blocks["idle"].verdict is Verdict.CORRECT
    assert report.passed
    assert any(f.kind == "constant" and f.block == "idle" for f in report.findings)


def test_a_gradient_forgotten_as_zero_is_wrong():
    loss, gradient, params = smooth()
    report = screen(loss, planted(gradient, params, lambda tree: tree["W"].fill(0)), params)
    assert report.blocks["W"].verdict is Verdict.WRONG
    assert report.blocks["W"].difference == pytest.approx(1)


def test_a_gradient_that_should_be_zero_is_wrong():
    loss, gradient, params = smooth()
    params["idle"] = np.ones((3, 3))
    report = screen(loss, lambda p: gradient(p) | {"idle": np.full((3, 3), 0.1)}, params)
    assert report.blocks["idle"].verdict is Verdict.WRONG


def test_a_float32_loss_is_no_false_alarm():
    loss, gradient, params = smooth()
    report = screen(lambda p: float(np.float32(loss(p))), gradient, params)
    assert report.verdict in (Verdict.INCONCLUSIVE, Verdict.CORRECT)
    assert not report.wrong


def test_at_a_kink_there_is_no_verdict():
    params = {"w": np.zeros(40), "v": np.ones(40)}

    def loss(p):
        return float(np.abs(p["w"]).sum() + (p["v"] ** 2).sum())

    report = screen(loss, {"w": np.zeros(40), "v": 2 * np.ones(40)}, params)
    assert report.blocks["w"].verdict is Verdict.INCONCLUSIVE
    assert report.blocks["v"].verdict is Verdict.CORRECT
    right_side = screen(loss, {"w": np.ones(40), "v": 2 * np.ones(40)}, params)
    assert right_side.blocks["w"].verdict is Verdict.CORRECT  # few enough to be measured one by one: subgradients


def test_kinks_all_around_are_no_false_alarm():
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((4000, 30)), rng.standard_normal(30)

    def loss(p):
        return float(np.mean(np.abs(X @ p["w"])))

    for seed in range(10):
        report = screen(loss, {"w": X.T @ np.sign(X @ w) / len(X)}, {"w": w}, seed=seed)
        assert report.verdict in (Verdict.CORRECT, Verdict.INCONCLUSIVE)


def test_a_budget_ends_the_screen_and_the_report_says_so():
    loss, gradient, params = smooth()
    report = screen(loss, gradient, params, budget=1e-9)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.findings[0].kind == "stopped"


def test_an_interrupt_ends_the_screen_and_the_report_says_so():
    loss, gradient, params = smooth()
    calls = [0]

    def interrupted(p):
        calls[0] += 1
        if calls[0] == 12:
            raise KeyboardInterrupt
        return loss(p)

    before = {name: array.copy() for name, array in params.items()}
    report = screen(interrupted, gradient, params)
    assert report.findings[0].kind == "stopped"
    assert all(np.array_equal(params[name], before[name]) for name in params)


def test_a_loss_that_fails_at_long_steps_is_screened_at_short_ones():
    def loss(p):
        if np.any(np.abs(p["w"] - 1) > 1e-7):
            raise ValueError("out of range")
        return float(np.sum(p["w"] ** 2))

    report = screen(loss, {"w": 2 * np.ones(5)}, {"w": np.ones(5)})
    assert report.verdict in (Verdict.CORRECT, Verdict.INCONCLUSIVE)
    assert not report.wrong


@pytest.mark.parametrize("options", [{"step": 1e-5}, {"scheme": "forward"}, {"samples": 5}])
def test_what_a_screen_chooses_itself_cannot_be_asked_for(options):
    loss, gradient, params = smooth()
    with pytest.raises(InputError, match="screen"):
        screen(loss, gradient, params, **options)


def test_auto_is_full_where_that_is_cheap_and_a_screen_where_it_is_not():
    net = digits_net((12,), batch=16)
    small = fastcheck.check(net.loss, net.gradient, net.params, args=net.args)
    assert small.coverage == 1
    net = mlp((300, 400, 10), batch=64)
    large = fastcheck.check(net.loss, net.gradient, net.params, args=net.args, budget=1.0)
    assert large.coverage < 0.01
    assert large.verdict is Verdict.CORRECT


def test_a_scalar_and_an_empty_block_are_screened():
    params = {"s": np.float64(0.7), "none": np.zeros((0, 3)), "w": np.arange(1.0, 4.0)}

    def loss(p):
        return float(np.sin(p["s"]) + np.sum(p["w"] ** 3))

    gradient = {"s": np.cos(0.7), "none": np.zeros((0, 3)), "w": 3 * params["w"] ** 2}
    report = screen(loss, gradient, params)
    assert report.blocks["s"].verdict is Verdict.CORRECT
    assert report.blocks["w"].verdict is Verdict.CORRECT
    assert report.passed
    wrong = screen(loss, gradient | {"s": -np.cos(0.7)}, params)
    assert wrong.wrong[0].name == "s"


def scientific(seed):
    """Return loss, gradient and params whose entries span fifteen orders of magnitude."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** np.append(rng.uniform(-9, 6, 10), [-9, 6])
    w = size * rng.uniform(0.5, 2, 12)

    def loss(p):
        return float(np.sum(np.sin(p / size)) + np.prod(np.tanh(p / size)))

    x = w / size
    t = np.tanh(x)
    return loss, (np.cos(x) + np.prod(t) / t * (1 - t * t)) / size, w


@pytest.mark.parametrize("seed", [*range(5), 22, 107, 108, 136])
def test_entries_of_very_different_sizes_are_moved_by_their_own(seed):
    loss, gradient, w = scientific(seed)
    assert screen(loss, gradient, w, seed=seed).verdict is Verdict.CORRECT
    gradient[4] *= -1
    report = screen(loss, gradient, w, seed=seed)
    assert [c.index for c in report.wrong] == [(4,)]


@pytest.mark.parametrize("mode", ["full", "sample", "screen"])
@pytest.mark.parametrize(("n", "seed"), [(4, 2), (4, 11), (12, 3), (12, 38), (40, 1), (40, 14), (200, 0), (200, 9)])
def test_one_entry_on_a_scale_far_below_all_others_is_no_noise_and_no_false_alarm(n, seed, mode):
    rng = np.random.default_rng(seed)
    size = np.append(np.full(n - 1, 1e6), 1e-9)
    w = size * rng.uniform(0.5, 2, n)

    def loss(p):
        return float(np.sum(np.sin(p / size)) + 0.3 * np.sum(np.tanh(p[1:] / size[1:]) * np.cos(p[:-1] / size[:-1])))

    x = w / size
    gradient = np.cos(x)
    gradient[1:] += 0.3 * (1 - np.tanh(x[1:]) ** 2) * np.cos(x[:-1])
    gradient[:-1] -= 0.3 * np.tanh(x[1:]) * np.sin(x[:-1])
    gradient /= size
    report = fastcheck.check(loss, gradient, w, mode=mode, samples=n if mode == "sample" else None, seed=seed)
    assert report.verdict in (Verdict.CORRECT, Verdict.INCONCLUSIVE)
    assert report.settings["noise"] < 1e-12
    gradient[-1] *= -1
    report = fastcheck.check(loss, gradient, w, mode=mode, samples=n if mode == "sample" else None, seed=seed)
    assert report.verdict is Verdict.WRONG or (report.verdict is Verdict.INCONCLUSIVE and (n, seed) == (200, 9))
    assert [c.index for c in report.wrong] == [(n - 1,)] * report.verdict.refuted


@pytest.mark.parametrize("seed", range(4))
def test_what_is_counted_from_afar_is_measured_with_short_steps(seed):
    """A time in seconds since 1970: its size tells nothing of the scale on which J changes."""
    rng = np.random.default_rng(seed)
    start, w = 1.7e9, 1.7e9 + rng.uniform(-2, 2, 9)
    a = rng.normal(size=(9, 9)) / 9

    def loss(p):
        return float(np.sum(np.tanh(a @ (p - start)) ** 2) + 0.1 * np.sum((p - start) ** 2))

    t = np.tanh(a @ (w - start))
    gradient = a.T @ (2 * t * (1 - t * t)) + 0.2 * (w - start)
    assert screen(loss, gradient, w, seed=seed).verdict is Verdict.CORRECT
    gradient[3] *= 1.1
    assert [c.index for c in screen(loss, gradient, w, seed=seed).wrong] == [(3,)]


@pytest.mark.parametrize(("n", "seed"), [(25, 15), (4, 23), (17, 40)])
def test_a_factor_that_the_largest_derivative_does_not_have_is_none(n, seed):
    """The directions turn the smallest parameter many times over, and show the same slope at every step."""
    rng = np.random.default_rng(seed)
    size = 10 ** np.append(rng.uniform(-8, 12, n - 2), [-11, 12])
    w = size * rng.normal(size=n)

    def loss(p):
        return float(np.sum(np.sin(p / size)) + np.sum(np.tanh(p[1:] / size[1:]) * p[:-1] / size[:-1]))

    x = w / size
    gradient = np.cos(x)
    gradient[1:] += (1 - np.tanh(x[1:]) ** 2) * x[:-1]
    gradient[:-1] += np.tanh(x[1:])
    report = screen(loss, gradient / size, w, seed=seed)
    assert report.verdict is Verdict.CORRECT
    report = screen(loss, 1.1 * gradient / size, w, seed=seed)
    assert report.verdict is Verdict.WRONG


def molecule(n):
    """Distances in metres, with zeros and what the sine of pi leaves of one."""
    rng = np.random.default_rng(n)
    x = 1e-10 * np.stack([1.1 * np.arange(n), np.cos(np.pi / 2 * np.arange(n)), np.sin(np.pi * np.arange(n))], 1)
    i, j = np.triu_indices(n, 1)
    k, rest = rng.uniform(100, 1000, len(i)), rng.uniform(1e-10, 2e-10, len(i))

    def loss(p):
        return float(np.sum(k * (np.linalg.norm(p[i] - p[j], axis=1) - rest) ** 2) / 1e-18)

    apart = x[i] - x[j]
    r = np.linalg.norm(apart, axis=1)
    pull = (2e18 * k * (r - rest) / r)[:, None] * apart
    gradient = np.zeros_like(x)
    np.add.at(gradient, i, pull)
    np.add.at(gradient, j, -pull)
    return loss, gradient, x


def shrunk(n):
    """A linear layer, most of whose weights decayed to next to nothing, some to zero."""
    rng = np.random.default_rng(n)
    w, a = rng.normal(size=n), rng.normal(size=(40, n)) / n**0.5
    w[rng.random(n) < 0.7] *= 1e-22
    w[0] = 0.0
    return lambda p: float(np.sum(np.tanh(a @ p) ** 2)), a.T @ (2 * np.tanh(a @ w) / np.cosh(a @ w) ** 2), w


def own_units(n):
    """Quantities in units of their own, some of them zero."""
    rng = np.random.default_rng(n)
    size = 10 ** rng.uniform(-12, 3, n)
    w, c = size * rng.normal(size=n), rng.normal(size=n)
    w[::5] = 0.0
    return lambda p: float(np.sum(c * np.sin(p / size + 1))), c * np.cos(w / size + 1) / size, w


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize(
    ("problem", "n"),
    [(molecule, 3), (molecule, 9), (shrunk, 20), (shrunk, 300), (own_units, 30), (own_units, 300)],
)
def test_zeros_and_next_to_nothing_beside_what_is_not(problem, n, mode):
    loss, gradient, w = problem(n)
    assert fastcheck.check(loss, gradient, w, mode=mode).verdict is Verdict.CORRECT
    entry = np.unravel_index(np.argmin(np.where(gradient == 0, np.inf, np.abs(w))), w.shape)
    if mode == "screen":  # of entries in units of their own it tells the steepest first
        entry = np.unravel_index(np.argmax(np.abs(gradient)), w.shape)
    gradient[entry] = 0.0
    report = fastcheck.check(loss, gradient, w, mode=mode)
    assert [c.index for c in report.wrong] == [entry]


@pytest.mark.parametrize("n", [300, 500, 1000, 3000])
def test_an_error_in_a_decayed_entry_is_seen_from_what_is_stated_on(n):
    loss, gradient, w = shrunk(n)
    block = screen(loss, gradient, w).blocks["theta"]
    norm = np.linalg.norm(gradient)
    assert block.bound < block.detectable < 1e-4
    gradient[np.argmin(np.where(w == 0, 1, np.abs(w)))] += 1.1 * block.detectable * norm
    assert not screen(loss, gradient, w).passed


def test_decayed_entries_that_are_claimed_not_to_matter_are_seen():
    loss, gradient, w = shrunk(300)
    gradient[np.argmin(np.where(w == 0, 1, np.abs(w)))] = 0.0
    assert screen(loss, gradient, w).verdict is Verdict.WRONG


def test_uneven_blocks_beside_others_are_moved_together():
    rng = np.random.default_rng(0)
    a, params = rng.normal(size=(5, 300)), {"w": rng.normal(size=300), "b": rng.normal(size=5), "c": rng.normal(size=3)}
    params["w"][100:] *= 1e-20

    def loss(p):
        return float(np.sum(np.tanh(a @ p["w"] / 10 + p["b"])) + np.sum(np.sin(p["c"])))

    slope = 1 / np.cosh(a @ params["w"] / 10 + params["b"]) ** 2
    gradient = {"w": a.T @ slope / 10, "b": slope, "c": np.cos(params["c"])}
    assert screen(loss, gradient, params).verdict is Verdict.CORRECT
    assert [
        name
        for name, block in screen(loss, {**gradient, "w": 1.1 * gradient["w"]}, params).blocks.items()
        if block.verdict is Verdict.WRONG
    ] == ["w"]


@pytest.mark.parametrize("mode", ["full", "screen"])
@pytest.mark.parametrize(("n", "seed"), [(4, 0), (12, 9), (40, 1)])
def test_a_zero_on_a_scale_far_below_all_others_is_no_proof_of_anything(n, seed, mode):
    rng = np.random.default_rng(seed)
    size = np.append(np.full(n - 1, 1e6), 1e-9)
    w = size * rng.uniform(0.5, 2, n)
    w[-1] = 0.0  # its scale cannot be known
    report = fastcheck.check(
        lambda p: float(np.sum(np.sin(p / size + 0.3))), np.cos(w / size + 0.3) / size, w, mode=mode, seed=seed
    )
    assert report.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("mode", ["full", "screen"])
def test_entries_that_decayed_to_next_to_nothing_are_measured_on_the_scale_of_their_block(mode):
    rng = np.random.default_rng(0)
    w = rng.standard_normal(60)
    w[::5] *= 1e-13
    a = rng.standard_normal((80, 60))
    report = fastcheck.check(lambda p: float(np.sum(np.tanh(a @ p))), a.T @ (1 - np.tanh(a @ w) ** 2), w, mode=mode)
    assert report.verdict is Verdict.CORRECT
    wrong = a.T @ (1 - np.tanh(a @ w) ** 2)
    wrong[5] *= 1.1
    report = fastcheck.check(lambda p: float(np.sum(np.tanh(a @ p))), wrong, w, mode=mode)
    assert [c.index for c in report.wrong] == [(5,)]


def test_a_loss_that_changes_far_within_every_step_is_no_false_alarm():
    w = np.linspace(0.5, 2, 20)

    def loss(p):
        return float(np.sum(np.sin(1e14 * p)))

    report = screen(loss, 1e14 * np.cos(1e14 * w), w)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert not report.wrong


def test_a_loss_with_jumps_is_no_false_alarm():
    w = np.linspace(0.5, 2, 20)

    def loss(p):
        return float(np.sum(p**2) + 1e-3 * np.floor(1e6 * p[3]))

    for seed in range(10):
        assert screen(loss, 2 * w, w, seed=seed).verdict in (Verdict.CORRECT, Verdict.INCONCLUSIVE)


def test_an_entry_next_to_zero_counts_as_much_as_the_others():
    """They move alike, however unlike their sizes are, where a block can be measured one by one if that fails."""
    c, at = np.array([1.0, 2.0, 3.0]), np.array([0.1, 1e-9, 0.6])
    loss = lambda p: float(c @ p)  # noqa: E731
    assert screen(loss, c, at).passed
    report = screen(loss, c * [1, 1.2, 1], at)
    assert report.verdict is Verdict.WRONG
    assert [coordinate.name for coordinate in report.wrong] == ["theta[1]"]
    assert report.difference > 0.01
    rng = np.random.default_rng(0)
    for _ in range(20):
        n = int(rng.integers(2, 33))
        a, at = rng.standard_normal(n), rng.standard_normal(n) * 10.0 ** rng.integers(-9, 3, n)
        loss = lambda p, a=a: float(np.sum(np.sin(a * p) + 0.1 * a * p))  # noqa: E731
        right, place = a * np.cos(a * at) + 0.1 * a, int(rng.integers(n))
        assert not screen(loss, right, at).verdict.refuted
        wrong = right.copy()
        wrong[place] *= 1.2
        assert not screen(loss, wrong, at).passed, (n, place)
