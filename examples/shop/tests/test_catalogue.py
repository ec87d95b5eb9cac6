"""Pages, API and export of the catalogue."""

from __future__ import annotations

import csv
import io
from unittest import mock

from django.core.files.uploadedfile import SimpleUploadedFile

from catalogue.models import Product, Review
from shop.urls import urlpatterns
from tests.base import ShopTestCase

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


class Pages(ShopTestCase):
    """What a visitor sees."""

    def test_every_page_of_the_catalogue_answers(self) -> None:
        product = Product.objects.first()
        for path in ("/", "/catalogue/", product.category.get_absolute_url(), product.get_absolute_url()):
            response = self.client.get(path)
            self.assertContains(response, "Maison Cadence")

    def test_list_has_pages(self) -> None:
        first = self.client.get("/catalogue/")
        last = self.client.get("/catalogue/?page=999")
        self.assertEqual(len(first.context["page"]), 24)
        self.assertEqual(last.context["page"].number, 3)
        self.assertEqual(len(last.context["page"]), 12)

    def test_list_costs_a_fixed_number_of_queries(self) -> None:
        # count, products, categories
        with self.assertNumQueries(3):
            self.client.get("/catalogue/")

    def test_search_needs_every_word(self) -> None:
        response = self.client.get("/catalogue/", {"q": "no. 42"})
        names = [product.name for product in response.context["page"]]
        self.assertTrue(names)
        self.assertTrue(all("No. 42" in name for name in names))

    def test_search_without_a_find(self) -> None:
        self.assertContains(self.client.get("/catalogue/", {"q": "zzz<b>"}), "Nothing here goes by that name")

    def test_order_by_price(self) -> None:
        page = self.client.get("/catalogue/", {"order": "price"}).context["page"]
        prices = [product.price for product in page]
        self.assertEqual(prices, sorted(prices))

    def test_unknown_pages_are_404(self) -> None:
        for path in ("/product/none/", "/category/none/", "/nowhere"):
            self.assertEqual(self.client.get(path).status_code, 404)

    def test_related_products_are_others_from_the_same_shelf(self) -> None:
        product = Product.objects.first()
        related = self.client.get(product.get_absolute_url()).context["related"]
        self.assertEqual(len(related), 4)
        self.assertEqual({other.category_id for other in related}, {product.category_id})
        self.assertNotIn(product, related)

    def test_pictures_are_served(self) -> None:
        # The URLconf has read MEDIA_ROOT before the test moved it.
        with mock.patch.dict(urlpatterns[-1].default_args, document_root=self._media):
            response = self.client.get(Product.objects.first().image.url)
        self.assertEqual(response["Content-Type"], "image/svg+xml")
        self.assertTrue(b"".join(response.streaming_content).startswith(b"<svg"))


class Data(ShopTestCase):
    """The JSON API and the export."""

    def test_api_list(self) -> None:
        data = self.client.get("/api/products/", {"category": "guitars"}).json()
        self.assertEqual((data["count"], data["page"], data["pages"]), (6, 1, 1))
        self.assertEqual({product["category"] for product in data["products"]}, {"guitars"})

    def test_api_product(self) -> None:
        product = Product.objects.first()
        data = self.client.get(f"/api/products/{product.slug}/").json()
        self.assertEqual((data["sku"], data["price"]), (product.sku, str(product.price)))
        self.assertEqual(data["reviews"], product.reviews.count())

    def test_export_has_a_row_for_each_product(self) -> None:
        response = self.client.get("/export/products.csv")
        self.assertTrue(response.streaming)
        rows = list(csv.DictReader(io.StringIO(response.getvalue().decode())))
        self.assertEqual(len(rows), 60)
        self.assertEqual(rows[0]["sku"], "MC-00001")


class Reviews(ShopTestCase):
    """Writing a review, with a photo."""

    def post(self, **fields: object) -> object:
        """Sends the review form of the first product."""
        self.product = Product.objects.first()
        data = {"stars": "5", "text": "Sings."} | fields
        return self.client.post(f"{self.product.get_absolute_url()}review/", data)

    def test_needs_a_login(self) -> None:
        self.assertRedirects(self.post(), f"/accounts/login/?next=/product/{self.product.slug}/review/")

    def test_review_with_photo(self) -> None:
        self.client.force_login(self.customer)
        before = Review.objects.count()
        response = self.post(photo=SimpleUploadedFile("../../Sound Hole.PNG", PNG))
        self.assertRedirects(response, f"{self.product.get_absolute_url()}#reviews")
        self.assertEqual(Review.objects.count(), before + 1)
        review = Review.objects.first()
        self.assertRegex(review.photo.name, r"^reviews/[0-9a-f]{24}\.png$")
        self.assertEqual(review.photo.read(), PNG)

    def test_what_is_no_photo_is_refused(self) -> None:
        self.client.force_login(self.customer)
        before = Review.objects.count()
        for photo in (
            SimpleUploadedFile("a.png", b"<svg onload=alert(1)>"),
            SimpleUploadedFile("a.html", PNG),
        ):
            response = self.post(photo=photo)
            self.assertContains(response, "image", status_code=422)
        self.assertEqual(Review.objects.count(), before)

    def test_stars_have_a_range(self) -> None:
        self.client.force_login(self.customer)
        self.assertEqual(self.post(stars="6").status_code, 422)
