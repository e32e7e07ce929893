import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what a process uses cannot be told here")
def test_with_too_little_memory_fewer_rows_are_decoded_to_the_same_tokens() -> None:
    # The 256 rows take more than 24 MB.
    process = subprocess.run(
        [sys.executable, str(TESTS / "limited_memory.py"), "24"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found["right"]
    assert found["tried"][0] == 256
    assert len(found["tried"]) > 1
    assert all(fewer == more // 2 for more, fewer in zip(found["tried"], found["tried"][1:], strict=False))
