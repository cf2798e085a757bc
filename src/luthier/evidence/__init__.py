"""What the measurements say together: by field, by kind of failure, by confidence, between two runs."""
