"""All URLs of the shop."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path
from django.views.static import serve

admin.site.site_header = "Maison Cadence"
admin.site.site_title = "Maison Cadence"
admin.site.index_title = "Behind the counter"

urlpatterns = [
    path("", include("catalogue.urls")),
    path("", include("orders.urls")),
    path("", include("lab.urls")),
    path("accounts/", include("accounts.urls")),
    path("admin/", admin.site.urls),
    # Pictures of products and reviews are public. A web server that knows MEDIA_ROOT answers these itself;
    # this line is for servers that do not.
    re_path(r"^media/(?P<path>.*)$", serve, {"document_root": settings.MEDIA_ROOT}),
]
