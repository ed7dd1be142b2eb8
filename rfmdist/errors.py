"""The errors a user can cause or meet, each one sentence that names the thing and the mend."""

import errno


class RfmdistError(Exception):
    """Base of all errors raised on purpose; the command line prints its text and exits with code 2."""


class InputError(RfmdistError, ValueError):
    """A file, an option or an argument cannot be used as given."""


class SingularRowError(InputError):
    """A row's system cannot be solved in the dtype at hand: too small a ridge for features that lost rank."""


class StoreError(RfmdistError):
    """A store is missing, torn, corrupted, of another version, or cannot be written."""


class UnreachableError(StoreError, OSError):
    """What lies at a URL cannot be read or written: the network, the credentials or the address are wrong."""


def disk_error(error: OSError, what: str) -> StoreError:
    """Say in one sentence why writing ``what`` failed, a full disk above all."""
    if isinstance(error, StoreError):  # says so already
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"{what}: the disk is full; free some space or write elsewhere, then run again")
    return StoreError(f"{what}: cannot be written ({error.strerror or error})")
