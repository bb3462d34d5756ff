"""The archives of OAIZIB-CM, and a server that has them."""

from helpers.archives import archives, hub  # noqa: F401 (fixtures)
