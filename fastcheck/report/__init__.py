"""The report: data here, its words in `words`, its layouts in `terminal` and `jsonfile`."""

from fastcheck.report.report import BlockReport, Coordinate, Report

__all__ = ["BlockReport", "Coordinate", "Report"]
