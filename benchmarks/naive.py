"""The textbook loop, as its users write it."""

from __future__ import annotations

import copy

import numpy as np


def dictionary_to_vector(parameters):
    """Roll the dict of parameters into one column."""
    return np.concatenate([np.reshape(value, (-1, 1)) for value in parameters.values()], axis=0)


def vector_to_dictionary(theta, like):
    """Unroll the column into a dict of new arrays, in the shapes of another one."""
    parameters, start = {}, 0
    for name, value in like.items():
        parameters[name] = theta[start : start + value.size].reshape(value.shape)
        start += value.size
    return parameters


def gradient_check(loss, parameters, gradient, args=(), epsilon=1e-7, coordinates=None):
    """Return the ratio |g - n| / (|g| + |n|) and n, over all coordinates of theta or some of them."""
    theta = dictionary_to_vector(parameters)
    grad = dictionary_to_vector(gradient)
    coordinates = range(theta.shape[0]) if coordinates is None else coordinates
    J_plus = np.zeros((len(coordinates), 1))
    J_minus = np.zeros((len(coordinates), 1))
    gradapprox = np.zeros((len(coordinates), 1))
    for row, i in enumerate(coordinates):
        theta_plus = copy.deepcopy(theta)
        theta_plus[i][0] = theta_plus[i][0] + epsilon
        J_plus[row] = loss(vector_to_dictionary(theta_plus, parameters), *args)
        theta_minus = copy.deepcopy(theta)
        theta_minus[i][0] = theta_minus[i][0] - epsilon
        J_minus[row] = loss(vector_to_dictionary(theta_minus, parameters), *args)
        gradapprox[row] = (J_plus[row] - J_minus[row]) / (2 * epsilon)
    measured = grad[list(coordinates)]
    numerator = np.linalg.norm(measured - gradapprox)
    denominator = np.linalg.norm(measured) + np.linalg.norm(gradapprox)
    return numerator / denominator, gradapprox
