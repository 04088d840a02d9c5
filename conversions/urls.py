"""Addresses of the overview, conversions and reports."""

from django.urls import path

from conversions import (
    continue_pages,
    driver_pages,
    in_place,
    launch,
    pages,
    target_pages,
    views,
)

urlpatterns = [
    path("", pages.overview, name="overview"),
    path("machines/<uuid:uuid>/inspect/", launch.inspect, name="inspect"),
    path("machines/<uuid:uuid>/rehearse/", launch.rehearse, name="rehearse"),
    path("machines/<uuid:uuid>/convert/", launch.convert, name="convert"),
    path(
        "machines/<uuid:uuid>/convert-in-place/",
        in_place.convert_in_place,
        name="convert_in_place",
    ),
    path("conversions/", pages.conversions, name="conversions"),
    path("conversions/export.csv", pages.conversions_csv, name="conversions_csv"),
    path("conversions/export.json", pages.conversions_json, name="conversions_json"),
    path("conversions/<uuid:uuid>/", views.conversion, name="conversion"),
    path("conversions/<uuid:uuid>/log/", views.conversion_log, name="conversion_log"),
    path("conversions/<uuid:uuid>/log.txt", views.conversion_log_text, name="conversion_log_text"),
    path(
        "conversions/<uuid:uuid>/description/",
        views.conversion_description,
        name="conversion_description",
    ),
    path("conversions/<uuid:uuid>/live/", views.conversion_live, name="conversion_live"),
    path("conversions/<uuid:uuid>/stop/", views.conversion_stop, name="conversion_stop"),
    path("conversions/<uuid:uuid>/retry/", views.conversion_retry, name="conversion_retry"),
    path(
        "conversions/<uuid:uuid>/continue/",
        continue_pages.conversion_continue,
        name="conversion_continue",
    ),
    path(
        "conversions/<uuid:uuid>/discard/",
        continue_pages.conversion_discard,
        name="conversion_discard",
    ),
    path("drivers/", driver_pages.drivers, name="drivers"),
    path("drivers/list/", driver_pages.driver_list, name="driver_list"),
    path("drivers/<uuid:uuid>/cancel/", driver_pages.drivers_cancel, name="drivers_cancel"),
    path("drivers/add/", driver_pages.drivers_add, name="drivers_add"),
    path("drivers/remove/", driver_pages.drivers_remove, name="drivers_remove"),
    path("targets/", target_pages.target_list, name="targets"),
    path("targets/add/", target_pages.target_add, name="target_add"),
    path("targets/<uuid:uuid>/", target_pages.target_edit, name="target_edit"),
    path("targets/<uuid:uuid>/remove/", target_pages.target_remove, name="target_remove"),
    path("targets/<uuid:uuid>/check/", target_pages.target_check, name="target_check"),
    path("targets/maps/<int:pk>/remove/", target_pages.map_remove, name="map_remove"),
    path("reports/", pages.reports, name="reports"),
    path("reports/<uuid:uuid>/", pages.inspection, name="inspection"),
    path("reports/<uuid:uuid>/report.json", pages.inspection_json, name="inspection_json"),
    path("reports/<uuid:uuid>/inspection.xml", pages.inspection_xml, name="inspection_xml"),
]
