"""Commands of the conversions."""
