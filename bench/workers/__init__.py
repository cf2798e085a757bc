"""The processes of a benchmark, each run by `bench.harness.Worker` and idle until it is told to go."""
