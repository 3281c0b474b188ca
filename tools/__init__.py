"""What writes documents of this repository, from finished runs and from numbers. It is not part of the wheel."""
