"""What becomes of `.keras` files that version 0.2 has written: one sentence that says what to do."""

from typing import Any

import keras


def refuse_old_config(config: dict[str, Any]) -> None:
    """Raises ValueError for the configuration of a layer that version 0.2 has saved."""
    if "score_transform" in config:
        raise ValueError(
            "this file was written by iterand_tf 0.2, which 1.0 does not read; load it with iterand_tf 0.2 and save "
            f"export.bake(model), or train the model again. Received: layer={config.get('name')}"
        )


@keras.saving.register_keras_serializable(package="iterand_tf")
class GlobalMasks(keras.Model):
    """The class that version 0.2 had for models whose kernels are ranked together; its files are refused."""

    @classmethod
    def from_config(cls, config, custom_objects=None):
        refuse_old_config(config | {"score_transform": None})
