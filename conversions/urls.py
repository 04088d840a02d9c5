"""Addresses of the overview, conversions and reports."""

from django.urls import path

from conversions import launch, pages

urlpatterns = [
    path("", pages.overview, name="overview"),
    path("machines/<uuid:uuid>/inspect/", launch.inspect, name="inspect"),
    path("machines/<uuid:uuid>/rehearse/", launch.rehearse, name="rehearse"),
    path("machines/<uuid:uuid>/convert/", launch.convert, name="convert"),
    path("conversions/", pages.conversions, name="conversions"),
    path("conversions/export.csv", pages.conversions_csv, name="conversions_csv"),
    path("conversions/export.json", pages.conversions_json, name="conversions_json"),
    path("reports/", pages.reports, name="reports"),
    path("reports/<uuid:uuid>/", pages.inspection, name="inspection"),
    path("reports/<uuid:uuid>/report.json", pages.inspection_json, name="inspection_json"),
]
