"""How the split stage groups, cuts and assigns images, and the report of what it did."""
