"""Hardware profiles: what a device supports, how fast, and where every number comes from."""

from hwdse.hardware.load import check, list_profiles, load_profile, locate, parse_profile, profile_paths, search_path
from hwdse.hardware.lut import Entry, LatencyTable, ShapeKey
from hwdse.hardware.profile import HardwareProfile
from hwdse.hardware.quantity import Kind, Quantity
from hwdse.hardware.rate import Rate
from hwdse.hardware.recorded import recorded_profile
from hwdse.hardware.schema import Memory, ProfileFile, Tile

__all__ = [
    "Entry",
    "HardwareProfile",
    "Kind",
    "LatencyTable",
    "Memory",
    "ProfileFile",
    "Quantity",
    "Rate",
    "ShapeKey",
    "Tile",
    "check",
    "list_profiles",
    "load_profile",
    "locate",
    "parse_profile",
    "profile_paths",
    "recorded_profile",
    "search_path",
]
