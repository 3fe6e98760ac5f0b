"""The audit: counts of boxes and images, and the findings they give."""
