"""The kernel's rule for links in folders that all may write to, by hand, where the machine's own does not apply it.

fs/namei.c, may_follow_link, with fs.protected_symlinks=1, which is every common kernel's default. It is no namespace's.
"""

from __future__ import annotations

import stat


def is_followed(link_user: int, folder_user: int, folder_mode: int, reader: int) -> bool:
    """Whether a process of user `reader` follows a link of `link_user` that lies in such a folder."""
    is_shared = folder_mode & stat.S_ISVTX and folder_mode & stat.S_IWOTH
    return not is_shared or link_user in (reader, folder_user)
