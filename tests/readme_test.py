"""The README's example runs as printed, and its numbers stand in the documents that hold them."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_example_runs_as_printed(tmp_path):
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in script.splitlines() if line.strip()]) <= 15
    (tmp_path / "example.py").write_text(script)
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    (exported,) = tmp_path.glob("**/saved_model.pb")
    assert exported.parent.name == "1"


def test_every_number_stands_in_the_documents():
    documents = "".join((ROOT / "docs" / name).read_text() for name in ("results.md", "performance.md"))
    table = [line for line in README.splitlines() if line.startswith("|") and re.search(r"\d", line)]
    assert table
    for line in table:
        for number in re.findall(r"\d+\.\d+", line):
            assert number in documents, f"{number} of the README's table has no source"


def test_links_lead_to_files():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
