"""sim: simulated deployments a second on one core, world, faults and checks included."""
import json
import os
import subprocess

from lib import BUILD, QUICK


def run(results):
    for _ in range(1 if QUICK else 3):
        out = subprocess.run([os.path.join(BUILD, "tests/sim/sim"), "--bench"], check=True,
                             capture_output=True, text=True).stdout
        row = json.loads(out.splitlines()[-1])
        results.add(row["bench"], row["subject"], row["metric"], row["value"], row["unit"],
                    of=row["of"])
