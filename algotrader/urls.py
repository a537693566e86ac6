"""Which address is answered by what."""

from django.contrib import admin
from django.urls import include, path

from algotrader.api import api

admin.site.site_title = admin.site.site_header = "algo-trader"
admin.site.index_title = "Settings and records"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", api.urls),
    path("", include("dashboard.urls")),
]
