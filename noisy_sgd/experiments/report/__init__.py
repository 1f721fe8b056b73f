"""Claims against records, and the report."""
