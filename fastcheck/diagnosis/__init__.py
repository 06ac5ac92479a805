"""Why a gradient is wrong: evidence in, ranked findings out; one short pure rule for each kind of bug."""

from fastcheck.diagnosis.data_facts import DataFacts, facts_of
from fastcheck.diagnosis.diagnose import diagnose
from fastcheck.diagnosis.evidence import BlockEvidence, Coordinates, Directions, Evidence
from fastcheck.diagnosis.functions import UserFunctions

__all__ = [
    "BlockEvidence",
    "Coordinates",
    "DataFacts",
    "Directions",
    "Evidence",
    "UserFunctions",
    "diagnose",
    "facts_of",
]
