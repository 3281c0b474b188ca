"""Many runs: sweeps over flags, and reports on runs."""
