"""quintet: one program that runs an unmodified Django project.

A site need not import anything from here: `quintet run` (or `python -m quintet run`) serves it as it is. `postfork` is for what
must be made in each worker instead of once.
"""

from quintet._core import __version__
from quintet._hooks import postfork

__all__ = ["__version__", "postfork"]
