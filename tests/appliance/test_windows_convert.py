"""The conversions of Windows guests once more, in a real appliance on NTFS."""

from tests.unit.pipeline.windows.test_convert import *  # noqa: F403
