"""Which file systems are reached over a network: locks of files cannot be relied on there."""

from __future__ import annotations

import re
from pathlib import Path

from hwdse.errors import RunFolderError

__all__ = ["MOUNTS", "check_local", "network_type"]

MOUNTS = Path("/proc/mounts")
"""Where Linux lists what is mounted; other systems have no such file, and nothing is known there."""

_FUSE = [f"fuse.{name}" for name in "ceph ceph-fuse davfs2 gcsfuse glusterfs juicefs rclone s3fs sshfs".split()]
_NETWORK = frozenset(
    "afs beegfs beegfs_nodev ceph cifs davfs glusterfs gpfs lustre ncpfs nfs nfs4 orangefs panfs pvfs2 smb3 smbfs "
    "wekafs".split()
) | frozenset(_FUSE)


def network_type(path: Path, mounts: str) -> str | None:
    r"""Return the type of the network file system that ``path`` is on; ``None`` if it is on another one.

    Parameters
    ----------
    path
        Absolute, without links.
    mounts
        What :data:`MOUNTS` holds: a line per mount with device, place and type; later ones cover earlier ones.

    >>> table = "/dev/sda / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n/dev/sdb /home/scratch xfs rw 0 0\n"
    >>> network_type(Path("/home/runs"), table), network_type(Path("/home/scratch/runs"), table)
    ('nfs4', None)
    """
    found, depth = "", -1
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        place = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1]))
        if path.is_relative_to(place) and len(place.parts) >= depth:
            found, depth = fields[2], len(place.parts)
    return found if found in _NETWORK else None


def check_local(folder: Path) -> None:
    """Check that SQLite can rely on the locks of the file system that ``folder`` is on, or will be.

    Raises
    ------
    RunFolderError
        If it is a network file system.
    """
    if not MOUNTS.is_file():
        return
    kind = network_type(folder.resolve(), MOUNTS.read_text(encoding="utf-8", errors="replace"))
    if kind is not None:
        raise RunFolderError(
            f"expected a run folder on a local disk, got {folder} on a network file system ({kind}), where SQLite "
            "cannot rely on locks; name a folder on a local disk, and share evaluations with --pool postgresql://..."
        )
