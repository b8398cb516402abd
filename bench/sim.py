"""sim: simulated deployments a second on one core, world, faults and checks included; and the engine's
own time for one rolling deployment over 1,000 hosts."""
import json
import os
import subprocess

from lib import BUILD, QUICK


def sim(*args):
    out = subprocess.run([os.path.join(BUILD, "tests/sim/sim"), *args], check=True, capture_output=True,
                         text=True).stdout
    return json.loads(out.splitlines()[-1])


def run(results):
    for _ in range(1 if QUICK else 3):
        results.add(**sim("--bench"))
        results.add(**sim("--scale", "300" if QUICK else "1000"))
