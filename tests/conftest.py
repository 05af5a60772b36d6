"""What every test shares."""

from __future__ import annotations

from hypothesis import settings

# A slow or busy machine is no failure of the code.
settings.register_profile("superswarm", deadline=None)
settings.load_profile("superswarm")
