"""A model with channels first where TensorFlow cannot run it."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """
import sys, keras, export, iterand_tf
convolution = iterand_tf.SubnetConv2D(2, 3, data_format="channels_first")
model = keras.Sequential([keras.Input((3, 8, 8)), convolution, keras.layers.Flatten()], name="mine")
try:
    export.export_saved_model(model, sys.argv[1])
except export.ExportError as error:
    print(error)
"""


def test_says_in_a_sentence_what_to_do(tmp_path):
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "export")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == (
        "mine has layers with data_format='channels_first', which TensorFlow runs on a CPU only with oneDNN; set "
        "TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported, or build the model channels last.\n"
    )
    assert not (tmp_path / "export").exists()
