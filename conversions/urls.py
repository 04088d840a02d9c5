"""Addresses of the overview, conversions and reports."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
