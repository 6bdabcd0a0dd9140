"""What the verbs of the command line do."""

from hwdse.commands import answer, explore, profiles

__all__ = ["answer", "explore", "profiles"]
