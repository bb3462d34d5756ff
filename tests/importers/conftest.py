"""The archives of OAIZIB-CM, and a server that has them."""

from helpers.archives import archives, hub  # noqa: F401 (fixtures)
from helpers.dicom import tree  # noqa: F401 (fixture)
