"""Many runs: sweeps over flags, reports on runs, and the numbers behind the method's theory."""
