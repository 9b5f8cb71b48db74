"""The comparison table of results, and the report: one HTML page with figures and every query."""
