"""A catalogue of gradient bugs as data: every kind can be planted in any problem on which it makes sense."""

from fastcheck.examples.mutations.backward import BACKWARD
from fastcheck.examples.mutations.base import Mutated, Mutation
from fastcheck.examples.mutations.layout import LAYOUT
from fastcheck.examples.mutations.places import PLACES
from fastcheck.examples.mutations.regularisers import REGULARISERS
from fastcheck.examples.mutations.scaling import SCALING

__all__ = ["MUTATIONS", "Mutated", "Mutation"]

MUTATIONS: tuple[Mutation, ...] = SCALING + LAYOUT + PLACES + REGULARISERS + BACKWARD
