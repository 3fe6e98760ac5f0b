"""Speck's model side: training on a snapshot, tiled prediction, evaluation."""

import os

# Torch's threads wait for each other by spinning. With any other process on the machine the one waited for may not be
# running at all, and a step takes ten times as long; sleeping waiters cost a few percent. Read when Torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
