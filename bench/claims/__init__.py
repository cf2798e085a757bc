"""What people say of fine-tuning, measured with Luthier's own recipes: `python -m bench claims`."""
