"""Converting Linux guests: one idea a module, convert.py puts them in order."""
