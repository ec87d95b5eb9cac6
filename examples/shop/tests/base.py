"""A seeded shop for tests."""

from __future__ import annotations

import io
import shutil
import tempfile

from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import TestCase, override_settings

PRODUCTS = 60
# No collectstatic before the tests, and no half second for each password.
SETTINGS = {
    "STORAGES": {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    },
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
}


@override_settings(**SETTINGS)
class ShopTestCase(TestCase):
    """Sixty products, the two accounts of the demo, and a media folder of its own."""

    @classmethod
    def setUpClass(cls) -> None:
        """Redirects uploads before anything is seeded."""
        cls._media = tempfile.mkdtemp(prefix="shop-media-")
        cls.addClassCleanup(shutil.rmtree, cls._media, ignore_errors=True)
        elsewhere = override_settings(MEDIA_ROOT=cls._media)
        elsewhere.enable()
        cls.addClassCleanup(elsewhere.disable)
        super().setUpClass()

    @classmethod
    def setUpTestData(cls) -> None:
        """Seeds."""
        call_command("seed", products=PRODUCTS, stdout=io.StringIO())
        cls.customer = User.objects.get(username="customer")
        cls.admin = User.objects.get(username="admin")
