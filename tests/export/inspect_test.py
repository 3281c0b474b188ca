"""The report of an exported directory."""

import pytest

import export
import iterand_tf
from export import exporter
from export import inspect as inspect_module


@pytest.mark.parametrize("export_format", exporter.FORMATS)
def test_names_every_kernel_with_its_numbers(export_format, tmp_path, capsys):
    factory = iterand_tf.models.SubnetFactory(iterand_tf.Supermask(0.6), head_sparsity=0.2)
    model = iterand_tf.models.build("conv2", (8, 8, 1), 10, factory)
    result = export.export_saved_model(model, tmp_path, formats=export_format)
    assert inspect_module.main([str(result.path)]) == 0
    _, *rows, total, sizes = capsys.readouterr().out.splitlines()
    layers = iterand_tf.subnet_layers(model)
    assert [row.split()[0] for row in rows] == [f"{layer.name}/kernel" for layer in layers]
    for row, layer in zip(rows, layers, strict=True):
        _, shape, sparsity, coding, _, entropy, coded, draws = row.split()
        assert shape == "x".join(map(str, layer.kernel.shape))
        assert float(sparsity) == pytest.approx(layer.sparsity, abs=1e-3)
        assert (coding, draws) == ("seeded_signs" if export_format == "packed" else export_format, "1")
        assert float(coded) < float(entropy)
    bits, entropy, coded = map(float, total.split()[-4:-1])
    assert bits == pytest.approx(result.metrics()["bits_per_weight"], abs=1e-4)
    assert entropy == pytest.approx(result.metrics()["entropy_bits_per_weight"], abs=1e-4)
    assert coded == pytest.approx(result.metrics()["coded_entropy_bits_per_weight"], abs=1e-4)
    assert f"directory {result.num_bytes:,} bytes" in sizes
    assert f"dense {4 * result.num_weights:,}," in sizes


def test_refuses_other_directories(tmp_path, capsys):
    for arguments, sentence in (
        ([], "give one directory"),
        ([str(tmp_path)], "holds no assets.extra/export.json"),
    ):
        assert inspect_module.main(arguments) == 1
        assert sentence in capsys.readouterr().err
