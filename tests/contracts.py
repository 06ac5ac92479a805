"""Contracts of import-linter that it does not come with."""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """A package imports itself and what is listed, and nothing else: what is not named is not allowed.

    Configuration: ``package``, and ``allowed``, names of modules with all that is below them. The standard library is
    to be named too.
    """

    type_name = "only"

    package = fields.ModuleField()
    allowed = fields.ListField(subfield=fields.ModuleField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        package = self.package.name
        roots = [package, *(module.name for module in self.allowed)]
        found = [
            f"{importer} imports {imported}"
            for importer in sorted({package, *graph.find_descendants(package)})
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not any(imported == root or imported.startswith(f"{root}.") for root in roots)
        ]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["found"]:
            output.print_error(f"{line}, which is not in the list of what it may import", bold=False)
