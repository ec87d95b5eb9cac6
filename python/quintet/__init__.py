"""quintet: one program that runs an unmodified Django project.

There is nothing to import here for a site: `quintet run` (or `python -m quintet run`) serves it as it is.
"""

from quintet._core import __version__

__all__ = ["__version__"]
