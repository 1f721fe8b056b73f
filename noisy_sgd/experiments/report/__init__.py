"""The report: claims, judged by records, and its pages."""
