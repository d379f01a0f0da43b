"""Results as text: tables, CSV, JSON, one run."""
