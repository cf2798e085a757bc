"""How well the checks of `luthier check` find what they are for: faults planted in real data."""
