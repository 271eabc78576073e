"""A training that is killed again and again ends where an undisturbed one does."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_training.py"


def test_a_training_that_is_killed_ends_where_an_undisturbed_one_does(tmp_path):
    options = ["--kills=2", "--steps=120", "--every=10", f"--output={tmp_path / 'runs'}", "--seed=1"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    process = subprocess.run([sys.executable, SCRIPT, *options], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "2 kills, " in process.stdout and "equal, bit for bit" in process.stdout
    assert process.stdout.count("checkpoints open") == 2
