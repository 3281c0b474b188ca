"""Calls torch.kthvalue once for each line of its input, for `masks.py`; run by a Python that has torch and NumPy.

python benchmarks/torch_kthvalue.py SCORES.npy KTH
"""

import sys

import numpy as np
import torch


def main():
    file, kth = sys.argv[1:]
    scores = torch.from_numpy(np.load(file))
    for _ in sys.stdin:
        torch.kthvalue(scores, int(kth))
        print(flush=True)


if __name__ == "__main__":
    main()
