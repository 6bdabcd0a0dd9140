"""Published latencies and energies of whole networks: what predictions are fitted to and held against."""

from hwdse.published.rows import PublishedRow, published_path, read_rows

__all__ = ["PublishedRow", "published_path", "read_rows"]
