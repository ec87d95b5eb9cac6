"""URLs of the lab."""

from django.urls import path

from lab import views

urlpatterns = [
    path("hello/", views.hello, name="hello"),
    path("slow/", views.slow, name="slow"),
    path("fail/", views.fail, name="fail"),
]
