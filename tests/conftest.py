"""Settings of all tests."""

import os

from hypothesis import settings

# One torch thread per process: several test processes on two cores would wait for each other's threads.
os.environ["OMP_NUM_THREADS"] = "1"

# No deadline: on a busy machine it says nothing about the code. A change lands or not by the same examples every time;
# at a desk they are drawn anew.
settings.register_profile("desk", deadline=None)
settings.register_profile("landing", deadline=None, derandomize=True)
settings.load_profile("landing" if os.environ.get("CI") else "desk")
