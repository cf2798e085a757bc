"""Does `learning_rate: auto` find the rate that a grid would find? `python -m bench learning-rate`."""
