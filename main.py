"""The command line in a checkout: python main.py --flagfile=flags/NAME.flags [--flag=value ...].

The installed package has the same as `iterand-tf` and as `python -m iterand_tf`.
"""

import sys

from iterand_tf.cli import run_command_line

if __name__ == "__main__":
    sys.exit(run_command_line())
