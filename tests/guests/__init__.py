"""Builders of real guests, packed as other hypervisors export them, and a check that they boot."""
