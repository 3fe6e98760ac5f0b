"""Detections of others: their files, and which images and categories they mean."""
