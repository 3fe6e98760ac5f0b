"""The inference plan: which passes a model makes, chosen on val."""
