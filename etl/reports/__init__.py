"""Pages and charts; they read no store."""
