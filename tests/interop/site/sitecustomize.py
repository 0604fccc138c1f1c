"""The same for the processes that a test starts: ``conftest.py`` puts this folder on their path where it is needed."""

import torchvision_operators  # noqa: F401 - importing it is all
