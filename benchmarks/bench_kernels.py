"""A compiled loss in the perturbation kernel against the textbook loop and against JAX."""

from __future__ import annotations

import time

import numpy as np
import pytest

import benchmarks.naive as naive
from fastcheck.estimates import SCHEMES
from fastcheck.examples.course import course_net
from fastcheck.examples.dense import mlp
from fastcheck.losses import evaluator_for
from fastcheck.parallel.shards import Staff
from fastcheck.parameters import Parameters
from fastcheck.run import Run
from tests.zoo.compiled import compiled_course_net, compiled_mlp

STEP = 2.0**-20


def our_loop(net, rows, workers):
    """Return a function that measures so many coordinates, again from the first after the last, and their losses."""
    layout = Parameters.of(net.params)
    evaluator = evaluator_for(net.loss, layout, layout.flatten(net.params), net.args)
    scheme = SCHEMES["central"]

    def probes(part):
        return np.arange(part.start, part.stop) % layout.size, np.full(part.stop - part.start, STEP)

    def measure():
        derivative = np.empty(rows)
        with Run(staff=Staff(workers, "threads" if workers > 1 else "serial")) as run:
            for shard, values in run.stream(evaluator, rows, probes, scheme.offsets):
                derivative[shard.rows] = scheme.derivative(values, shard.steps)
        return derivative

    return measure


def textbook(net, coordinates):
    claimed = net.claimed()
    gradient = {name: claimed[f"d{name}"] if f"d{name}" in claimed else claimed[name] for name in net.params}
    return lambda: naive.gradient_check(net.loss, net.params, gradient, net.args, coordinates=coordinates)


def jax_course():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    net = compiled_course_net()
    x, y = (jnp.asarray(array) for array in net.args)

    def loss(theta):
        a = jnp.maximum(theta[:20].reshape(5, 4) @ x + theta[20:25, None], 0)
        a = jnp.maximum(theta[25:40].reshape(3, 5) @ a + theta[40:43, None], 0)
        s = theta[43:46].reshape(1, 3) @ a + theta[46]
        return jnp.mean(jnp.maximum(s, 0) - s * y + jnp.log1p(jnp.exp(-jnp.abs(s))))

    return net, loss


def jax_mlp():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    net = compiled_mlp((64, 100, 10), batch=128)
    X, y = jnp.asarray(net.args[0]), jnp.asarray(net.args[1])

    def loss(theta):
        a = jnp.maximum(theta[:6400].reshape(100, 64) @ X + theta[6400:6500, None], 0)
        s = theta[6500:7500].reshape(10, 100) @ a + theta[7500:, None]
        return jnp.mean(jax.scipy.special.logsumexp(s, axis=0) - s[y, jnp.arange(128)])

    return net, loss


def jax_loop(loss, theta, rows, chunks):
    """Return the fastest of jit(vmap) over chunks of coordinates, tried once each after compiling."""
    import jax
    import jax.numpy as jnp

    theta = jnp.asarray(theta)

    def central(i):
        return (loss(theta.at[i].add(STEP)) - loss(theta.at[i].add(-STEP))) / (2 * STEP)

    def loop(chunk):
        together = jax.jit(jax.vmap(central))
        blocks = [jnp.asarray(np.arange(k, k + chunk) % theta.size) for k in range(0, rows, chunk)]
        return lambda: jax.block_until_ready([together(block) for block in blocks])

    best, fastest = np.inf, None
    for chunk in chunks:
        work = loop(chunk)
        work()
        began = time.perf_counter()
        work()
        if (spent := time.perf_counter() - began) < best:
            best, fastest = spent, work
    return fastest


def test_the_course_net_against_the_textbook(ratio):
    rows = 470_000
    ours = our_loop(compiled_course_net(), rows, workers=1)
    theirs = textbook(course_net(), np.tile(np.arange(47), 20))
    ratio("4-5-3-1 net, compiled, vs the textbook loop", ours, theirs, 80, units=(rows, 940), rounds=9)


def test_the_course_net_against_jax(ratio):
    rows = 2**19
    net, loss = jax_course()
    theirs = jax_loop(loss, net.params, rows, [2**k for k in (6, 9, 12, 15, 17)])
    what = "4-5-3-1 net, compiled, 2 workers, vs jax jit(vmap)"  # which takes both cores too
    ratio(what, our_loop(net, rows, 2), theirs, 1, units=(rows, rows))


def test_the_digits_net_against_the_textbook(ratio):
    net = compiled_mlp((64, 100, 10), batch=128)
    tree = mlp((64, 100, 10), batch=128, activation="relu")
    coordinates = np.random.default_rng(0).permutation(7510)[:800]
    theirs = textbook(tree, coordinates)
    what = "64-100-10 net, batch 128, compiled, 2 workers, vs the textbook loop"
    ratio(what, our_loop(net, 7510, 2), theirs, 4, units=(7510, 800), rounds=7)


def test_the_digits_net_against_jax(ratio):
    net, loss = jax_mlp()
    theirs = jax_loop(loss, net.params, 7680, [16, 64, 256, 1280])
    what = "64-100-10 net, batch 128, compiled, 2 workers, vs jax jit(vmap)"
    ratio(what, our_loop(net, 7510, 2), theirs, 1.5, units=(7510, 7680))


def test_the_twins_are_one_function():
    for net, loss in (jax_course(), jax_mlp()):
        assert float(loss(net.params)) == pytest.approx(net.loss(net.params, *net.args), rel=1e-12)
