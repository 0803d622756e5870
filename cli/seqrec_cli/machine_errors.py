"""An error of the machine as one line: where it is, what it is, and what may help."""

from __future__ import annotations

import errno
import os
import shutil

_ADVICE = {
    errno.ENOSPC: "free some space, and run this again",
    errno.EDQUOT: "free some space, and run this again",
    errno.EFBIG: "this user, or that file system, may not write files of this size",
    errno.EACCES: "give this user the right to it, or another path",
    errno.EPERM: "give this user the right to it, or another path",
    errno.EROFS: "give a path that can be written to",
    errno.ENOTDIR: "there is a file in place of a folder; give another path",
    errno.EEXIST: "there is a file in place of a folder; give another path",
    errno.EISDIR: "give a file",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "check the path",
}


def said(error: OSError) -> str:
    """One line about an error of the operating system, with its path if it carries one."""
    number, reason, paths = error.errno, error.strerror, (error.filename, error.filename2)
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):  # of several files
        *paths_of_first, why = error.args[0][0]
        number, reason, paths = None, str(why), (paths_of_first[-1], None)
    names = [os.fsdecode(path) for path in paths if isinstance(path, str | bytes | os.PathLike)]
    text = reason or str(error) or type(error).__name__
    text = f"{' -> '.join(names)}: {text}" if names else text
    if number in _ADVICE:
        text += f"; {_ADVICE[number]}"
    return " ".join(text.split())
