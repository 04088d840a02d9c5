"""Addresses of Sources and Machines."""

from django.urls import path

from inventory import host_pages, machines, views

urlpatterns = [
    path("sources/", views.sources, name="sources"),
    path("sources/list/", views.upload_list, name="upload_list"),
    path("sources/upload/", views.upload_plain, name="upload_plain"),
    path("sources/import/", views.import_register, name="import_register"),
    path("sources/<uuid:uuid>/", views.upload, name="upload"),
    path("sources/<uuid:uuid>/cancel/", views.upload_cancel, name="upload_cancel"),
    path("sources/hosts/", host_pages.host_list, name="host_list"),
    path("sources/hosts/add/", host_pages.host_add, name="host_add"),
    path("sources/hosts/<uuid:uuid>/", host_pages.host, name="host"),
    path("sources/hosts/<uuid:uuid>/state/", host_pages.host_state, name="host_state"),
    path("sources/hosts/<uuid:uuid>/refresh/", host_pages.host_refresh, name="host_refresh"),
    path("sources/hosts/<uuid:uuid>/change/", host_pages.host_change, name="host_change"),
    path("sources/hosts/<uuid:uuid>/remove/", host_pages.host_remove, name="host_remove"),
    path("machines/", machines.machines, name="machines"),
    path("machines/<uuid:uuid>/", machines.machine, name="machine"),
    path("machines/<uuid:uuid>/source.txt", machines.machine_source, name="machine_source"),
    path("machines/<uuid:uuid>/refresh/", host_pages.machine_refresh, name="machine_refresh"),
    path("machines/<uuid:uuid>/forget/", machines.machine_forget, name="machine_forget"),
]
