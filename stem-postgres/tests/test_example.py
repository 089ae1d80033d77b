"""The order service, killed at random points: orders = mails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "order_service.py"


def test_every_order_has_its_mail(postgres_url: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), postgres_url, "--orders", "150"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    orders, _, mails, *_ = done.stdout.split()
    assert orders == mails != "0"
