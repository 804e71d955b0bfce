"""Whose a file or a directory is. What somebody else could have written decides nothing here."""

from __future__ import annotations

import os
import stat


def distrust(found: os.stat_result) -> str | None:
    """Say in a few words why a file or a directory is not to be believed; None when it is this user's or root's alone.

    A group may write when it is this user's own, as where each user has a group of the same name.
    """
    if not hasattr(os, "getuid"):
        return None
    if found.st_uid not in (os.getuid(), 0):
        return "it belongs to another user"
    if stat.S_ISLNK(found.st_mode):
        return None
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _own_group(found.st_gid)):
        return "others may write to it"
    return None


def _own_group(gid: int) -> bool:
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
