"""Template tags of the pages about conversions."""
