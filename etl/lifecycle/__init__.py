"""Champion, retraining and retention."""
