"""The demo: support messages to a JSON triage, written for this project."""

from pathlib import Path

RECIPE = Path(__file__).parent / "tickets.yaml"
DATA = Path(__file__).parent / "tickets.jsonl"
