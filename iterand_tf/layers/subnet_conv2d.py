"""SubnetConv2D, the subnetwork form of keras.layers.Conv2D."""

import numbers
from typing import Any

import keras
from keras import ops

from iterand_tf.layers.subnet_layer import SubnetLayer


@keras.saving.register_keras_serializable(package="iterand_tf")
class SubnetConv2D(SubnetLayer):
    """2-D convolution with `kernel * mask`, the kernel frozen and random, the scores trained.

    Source: Chijiwa et al., NeurIPS 2021, section 3. Arguments are those of `keras.layers.Conv2D`, except that those
    about training the kernel are replaced by those of `SubnetLayer`.

    Args:
        filters: output channels, a whole number above 0.
        kernel_size, strides, dilation_rate: a whole number or a pair (height, width).
        padding: `"valid"`, `"same"`, or zeros added on both sides of height and width before a valid convolution: a
            whole number of at least 0, or a pair of them.
        data_format: `"channels_last"`, `"channels_first"`, or None for Keras's default.
        groups: number of groups of channels; divides `filters` and the input channels.
        **kwargs: the arguments of `SubnetLayer`: `activation`, `use_bias` (False unless asked for), `sparsity`,
            `score_transform`, `weight_distribution`, `weight_scale`, `score_distribution`, `score_scale`, `seed`,
            `name` and so on.

    Input shape: `(batch, height, width, channels)`, or channels first. Output shape: as in `keras.layers.Conv2D`.
    Kernel shape: `(kernel height, kernel width, channels // groups, filters)`.

    Raises:
        ValueError: if an argument is out of range.

    >>> layer = SubnetConv2D(8, 3, strides=2, padding=1, sparsity=0.5, seed=0)
    >>> layer(ops.ones((2, 32, 32, 3))).shape
    TensorShape([2, 16, 16, 8])
    """

    dense_class = keras.layers.Conv2D

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = (1, 1),
        padding: str | int | tuple[int, int] = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, int] = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = False,
        **kwargs: Any,
    ):
        super().__init__(activation=activation, use_bias=use_bias, **kwargs)
        self.explicit_padding = () if isinstance(padding, str) else _pair_of_padding(padding)
        stock = keras.layers.Conv2D(
            filters,
            kernel_size,
            strides,
            "valid" if self.explicit_padding else padding,
            data_format,
            dilation_rate,
            groups,
            name=self.name,
        )
        self.filters = stock.filters
        self.kernel_size = stock.kernel_size
        self.strides = stock.strides
        self.padding = self.explicit_padding or stock.padding
        self.data_format = stock.data_format
        self.dilation_rate = stock.dilation_rate
        self.groups = stock.groups

    def build(self, input_shape):
        channel_axis = -1 if self.data_format == "channels_last" else 1
        channels = input_shape[channel_axis]
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={channel_axis: channels})
        if channels is None or channels % self.groups:
            raise ValueError(
                "the input channels must be known, and groups must divide them. "
                f"Received: {self.groups=}, {input_shape=}"
            )
        self.compute_output_shape(input_shape)
        self.add_kernel((*self.kernel_size, channels // self.groups, self.filters))

    def call(self, inputs):
        if self.explicit_padding:
            inputs = ops.pad(inputs, self._pad_width())
        outputs = ops.conv(
            inputs,
            ops.cast(self.effective_kernel(), self.compute_dtype),
            strides=self.strides,
            padding="valid" if self.explicit_padding else self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        if self.data_format == "channels_first" and self.use_bias:
            return self.activation(outputs + ops.reshape(ops.cast(self.bias, outputs.dtype), (1, -1, 1, 1)))
        return self._finish(outputs)

    def compute_output_shape(self, input_shape):
        if self.explicit_padding:
            input_shape = tuple(
                None if size is None else size + sum(pad)
                for size, pad in zip(input_shape, self._pad_width(), strict=True)
            )
        return self._dense_convolution().compute_output_shape(input_shape)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
        }

    def to_dense(self):
        """A built stock layer that computes the same outputs.

        It is a Conv2D, or with explicit padding a Sequential of ZeroPadding2D and Conv2D, of this layer's name.
        """
        self._check_built()
        convolution = self._dense_convolution()
        self._copy_weights_to(convolution)
        if not self.explicit_padding:
            return convolution
        pad = keras.layers.ZeroPadding2D(self.explicit_padding, self.data_format, dtype=self.dtype_policy)
        dense = keras.Sequential([pad, convolution], name=self.name)
        dense.build(self.get_build_config()["input_shape"])
        return dense

    def _dense_convolution(self):
        config = self._dense_config()
        if self.explicit_padding:
            config["padding"] = "valid"
        return keras.layers.Conv2D.from_config(config)

    def _pad_width(self):
        spatial = [(size, size) for size in self.explicit_padding]
        return [(0, 0), *spatial, (0, 0)] if self.data_format == "channels_last" else [(0, 0), (0, 0), *spatial]


def _pair_of_padding(padding: Any) -> tuple[int, int]:
    pair = tuple(padding) if isinstance(padding, (tuple, list)) else (padding, padding)
    if len(pair) != 2 or any(
        isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 0 for size in pair
    ):
        raise ValueError(
            "padding must be 'valid', 'same', a whole number of at least 0 or a pair of them. "
            f"Received: padding={padding!r}"
        )
    return int(pair[0]), int(pair[1])
