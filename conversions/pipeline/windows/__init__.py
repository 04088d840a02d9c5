"""Conversion of Windows guests."""
