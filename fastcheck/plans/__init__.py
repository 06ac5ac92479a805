"""Which probes to evaluate; one module for each plan."""
