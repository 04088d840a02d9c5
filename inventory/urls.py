"""Addresses of Sources and Machines."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
