"""`morphisms-init`: attest → token → secrets → files, then exit 0 or keep renewing. A failure is one line, one code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from typing import Final, Literal

from plan.codec import read_plan
from plan.document import Plan, PlanError
from plan.layout import PLAN_VARIABLE, VERSION
from sidecar.deadline import Deadline
from sidecar.errors import SidecarError, internal_error
from sidecar.hardening import disable_dumps
from sidecar.log import Events
from sidecar.paths import PodPaths
from sidecar.reasons import CAUSES, Exit, Reason
from sidecar.shutdown import ShutdownSignal

HELP = f"""usage: morphisms-init [--doctor | --report [--json] | --version]

Runs inside a pod, before its application: proves the guest to the verifier, fetches the secrets that the plan
names from Vault and publishes them on the pod's memory volumes. With agent "sidecar" it then keeps running, renews
its credentials and publishes what has changed, until SIGTERM. The webhook, or `morphisms render`, writes the plan
into the environment variable {PLAN_VARIABLE}.

options:
  --doctor   check each step by itself, say what is wrong, publish nothing
  --report   print MEASUREMENT, TCB and HOST_DATA of this guest, from the plan's evidence sources or, without a plan,
             from the usual ones; send nothing to a verifier
  --json     with --report: one JSON document
  --version  print the version

exit codes:
"""

Mode = Literal["provide", "doctor", "report", "report as JSON"]
_MODES: Final[Mapping[tuple[str, ...], Mode]] = {
    (): "provide",
    ("--doctor",): "doctor",
    ("--report",): "report",
    ("--report", "--json"): "report as JSON",
}


def main() -> None:
    """The command."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"morphisms-init {VERSION}\n")
        sys.exit(0)
    mode = _MODES.get(tuple(sys.argv[1:]))
    sys.exit(usage(sys.argv[1:]) if mode is None else run(os.environ, PodPaths(), mode))


def run(environment: Mapping[str, str], paths: PodPaths, mode: Mode = "provide") -> int:
    """One run from plan to files, or to what the mode prints; the exit code. Never raises."""
    shutdown = ShutdownSignal()
    events = Events(paths.termination_log)
    try:
        shutdown.listen()
        disable_dumps()
        if mode != "provide":
            gc.enable()
            optional = _plan(environment) if PLAN_VARIABLE in environment else None
            if mode == "doctor":
                from sidecar.doctor import examine

                return examine(optional, paths, events, shutdown)
            from sidecar.report import show

            return show(optional, as_json=mode == "report as JSON")
        plan = _plan(environment)
        if plan.agent == "sidecar":
            # The kubelet's first probe comes before TLS and cryptography are loaded; it finds the port and waits.
            from sidecar.health import listen

            listener = listen(paths.health)
            from sidecar.renew.renewer import publish_and_renew

            _collect_garbage()
            publish_and_renew(plan, paths, events, shutdown, listener)
        else:
            provide(plan, paths, events, shutdown)
    except SidecarError as error:
        events.refused(error)
        return error.exit_code
    except BaseException as error:
        events.refused(internal_error(error))
        return Exit.INTERNAL
    finally:
        shutdown.ignore()
    return Exit.PUBLISHED


def provide(plan: Plan, paths: PodPaths, events: Events, shutdown: ShutdownSignal) -> None:
    """From plan to published files. Raises SidecarError; revokes the token in any case."""
    # Imported here, so that a plan that cannot be read is reported before TLS and cryptography are loaded.
    from sidecar.attest.handshake import login_of
    from sidecar.publish.atomic_writer import HELPER, publish, read_helper
    from sidecar.publish.render import environments, files, reads
    from sidecar.vault.client import VaultClient

    _collect_garbage()
    deadline = Deadline(plan.deadline_seconds, shutdown)
    events.info("started", service=plan.workload.service, secrets=len(plan.secrets), variables=len(plan.env))
    wanted = reads(plan)
    helper = read_helper(paths.helper)
    attester = login_of(plan, paths.token, events)
    vault = VaultClient(plan.vault, events)
    try:
        attester.log_in(deadline, vault.use)
        secrets = {(path, version): vault.read(deadline, path, version) for path, version in wanted}
        run_files = {HELPER: helper, **environments(plan, secrets)}
        secret_files = files(plan, secrets)
        deadline.check("anything was published")
        publish(paths.secrets, secret_files, paths.run, run_files)
        events.info("published", files=len(secret_files), containers=len(run_files) - 1)
    except SidecarError as error:
        # The verifier remembers this guest under the id; what fails after the attestation names it too.
        error.correlation_id = error.correlation_id or attester.correlation_id
        raise
    finally:
        vault.revoke(Deadline(paths.revocation_seconds, ShutdownSignal()))


def _collect_garbage() -> None:
    """From now on, and not among what the modules have made: looking through that costs a tenth of a cold start."""
    gc.freeze()
    gc.enable()


def usage(arguments: list[str]) -> int:
    """Print the help; the exit code is 0 only when it was requested."""
    codes = "\n".join(f"  {code.value:>3}  {cause}" for code, cause in CAUSES.items())
    asked = arguments in (["--help"], ["-h"])
    print(HELP + codes, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else int(Exit.CONFIGURATION)


def _plan(environment: Mapping[str, str]) -> Plan:
    text = environment.get(PLAN_VARIABLE)
    if text is None:
        raise SidecarError(Reason.PLAN, f"there is no {PLAN_VARIABLE} in the environment")
    try:
        plan = read_plan(text)
    except PlanError as error:
        raise SidecarError(Reason.PLAN, str(error)) from None
    return plan


if __name__ == "__main__":
    main()
