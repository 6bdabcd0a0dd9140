"""One torch thread per process: several test processes on two cores would wait for each other's threads."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
