"""Template tags of the whole console."""
