"""Sweeps: several trainings of one recipe over one base, compared on the validation side."""
