"""Where another package is called nki, the command says so instead of failing somewhere inside."""

import os
import subprocess
import sys


def test_another_nki_is_named(tmp_path):
    (tmp_path / "nki").mkdir()
    (tmp_path / "nki" / "__init__.py").write_text("def jit(function):\n    return function\n")
    command = [sys.executable, "-c", "from nki_cli.main import app; app()", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert str(tmp_path / "nki") in done.stderr and "environments of their own" in done.stderr
