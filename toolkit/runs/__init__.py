"""Many questions: executors, sweeps, paper tables, the store and its provenance."""
