"""python -m iterand_tf: the installed command line."""

import sys

from iterand_tf.cli import run_command_line

if __name__ == "__main__":
    sys.exit(run_command_line())
