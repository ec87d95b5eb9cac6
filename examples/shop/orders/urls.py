"""URLs of basket and orders."""

from django.urls import path

from orders import views

app_name = "orders"

urlpatterns = [
    path("basket/", views.basket, name="basket"),
    path("basket/add/<slug:slug>/", views.add, name="add"),
    path("basket/change/<slug:slug>/", views.change, name="change"),
    path("checkout/", views.checkout, name="checkout"),
    path("orders/", views.order_list, name="list"),
    path("orders/<slug:number>/", views.order, name="order"),
]
