"""A catalogue of gradient bugs as data: every kind can be planted in any problem on which it makes sense."""

from fastcheck.bugs.backward import BACKWARD
from fastcheck.bugs.layout import LAYOUT
from fastcheck.bugs.mutation import Mutated, Mutation
from fastcheck.bugs.net import Net
from fastcheck.bugs.places import PLACES
from fastcheck.bugs.regularisers import REGULARISERS
from fastcheck.bugs.scaling import SCALING

__all__ = ["MUTATIONS", "Mutated", "Mutation", "Net"]

MUTATIONS: tuple[Mutation, ...] = SCALING + LAYOUT + PLACES + REGULARISERS + BACKWARD
