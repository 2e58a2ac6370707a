"""`make bench`: the budgets, measured. Ratios are the result; absolute times only say on what machine."""

from __future__ import annotations

import sys

from tests.bench import (
    admission,
    admission_stages,
    attack,
    attested,
    cluster,
    memory,
    report,
    scale,
    scanner,
    sidecar,
    verifier,
    verifier_stages,
)

PARTS = {
    "admission": admission.main,
    "admission-stages": admission_stages.main,
    "verifier": verifier.main,
    "verifier-stages": verifier_stages.main,
    "attested": attested.main,
    "attack": attack.main,
    "report": report.main,
    "sidecar": sidecar.main,
    "sidecar-stages": sidecar.stages,
    "cluster": cluster.main,
    "scanner": scanner.main,
    "scale": scale.main,
    "memory": memory.main,
}


def main() -> None:
    """Run the parts named on the command line, all of them without."""
    for name in sys.argv[1:] or PARTS:
        print(f"== {name}")
        PARTS[name]()


if __name__ == "__main__":
    main()
