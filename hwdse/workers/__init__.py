"""Work done side by side: by processes of this machine, or by Ray on many, with what they share sent once."""

from hwdse.workers.crew import Crew
from hwdse.workers.plan import Workers, engage

__all__ = ["Crew", "Workers", "engage"]
