"""A catalogue of gradient bugs as data: every kind can be planted in any problem on which it makes sense."""

from fastcheck.bugs.catalogue import BACKWARD, LAYOUT, PLACES, REGULARISERS, SCALING
from fastcheck.bugs.mutation import Mutated, Mutation, Net

__all__ = ["MUTATIONS", "Mutated", "Mutation", "Net"]

MUTATIONS: tuple[Mutation, ...] = SCALING + LAYOUT + PLACES + REGULARISERS + BACKWARD
