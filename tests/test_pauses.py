"""What holds the event loop up is bounded, in a process of its own: the figures are the whole interpreter's."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import gc, json, sys
import proxy.app
from proxy.pauses import shorten_pauses
before = len(gc.get_objects())
shorten_pauses()
print(json.dumps([before, len(gc.get_objects()), sys.getswitchinterval()]))
"""


def test_a_collection_leaves_out_what_modules_have_made_and_no_thread_keeps_the_interpreter_for_long() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True)
    before, after, interval = json.loads(ran.stdout)
    assert before > 20_000
    assert after < before / 100
    assert interval < 0.001
