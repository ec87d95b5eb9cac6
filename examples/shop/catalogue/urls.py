"""URLs of the catalogue."""

from django.urls import path

from catalogue import api, export, views

app_name = "catalogue"

urlpatterns = [
    path("", views.home, name="home"),
    path("catalogue/", views.product_list, name="list"),
    path("category/<slug:slug>/", views.category, name="category"),
    path("product/<slug:slug>/", views.product, name="product"),
    path("product/<slug:slug>/review/", views.review, name="review"),
    path("api/products/", api.product_list, name="api-list"),
    path("api/products/<slug:slug>/", api.product, name="api-product"),
    path("export/products.csv", export.products, name="export"),
]
