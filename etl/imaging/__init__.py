"""Image bytes to pixels and back."""
