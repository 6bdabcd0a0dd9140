"""Hardware profiles: what a device supports, how fast, and where every number comes from."""
