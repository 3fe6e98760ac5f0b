"""Average precision and all that is measured of detections against ground truth."""
