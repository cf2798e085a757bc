"""How Luthier is measured against its peers: `python -m bench`, written up in docs/benchmarks.md."""
