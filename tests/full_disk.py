"""A disk that is full, as far as this process is concerned."""

import contextlib
import resource


@contextlib.contextmanager
def files_of_at_most(size):
    """Within, writing more bytes than that into a file fails, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
