"""The app that VALIDATED_APP names (`module:callable`), with wsgiref's validator around it."""

from __future__ import annotations

import importlib
import os
from wsgiref.validate import validator

_module, _, _name = os.environ["VALIDATED_APP"].partition(":")
application = validator(getattr(importlib.import_module(_module), _name))
