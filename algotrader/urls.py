"""Which address is answered by what."""

from django.contrib import admin
from django.urls import include, path

from algotrader.api import api

admin.autodiscover()

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", api.urls),
    path("", include("dashboard.urls")),
]
