"""Publishes files and environments, and notifies the application when they change."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from plan.document import Plan
from sidecar.errors import SidecarError
from sidecar.log import Events
from sidecar.paths import PodPaths
from sidecar.publish.atomic_writer import DATA, HELPER, READY, publish, read_helper
from sidecar.publish.notify import notification
from sidecar.publish.render import File, Read, environments, files

Data = dict[str, Any]


class Publisher:
    """The last good answer for each secret of the plan, and the volumes that show them."""

    def __init__(self, plan: Plan, paths: PodPaths, events: Events) -> None:
        self._plan = plan
        self._paths = paths
        self._events = events
        self._helper = read_helper(paths.helper)
        self._notification = notification(plan.on_change)
        self._secrets: dict[Read, Data] = {}
        # Restarted beside a running application, which has to be notified of what has changed meanwhile.
        self._is_running = (paths.run / DATA).exists()
        # Killed between the switch and the signal: the application may not have got it.
        self._is_cut_off = self._is_running and not (paths.run / READY).exists()
        self.count = 0
        """How often something was published."""

    def begin(self, secrets: Mapping[Read, Data]) -> None:
        """The first publication of this process: everything or nothing. Raises SidecarError."""
        self._publish(dict(secrets))
        self._is_running = True
        self.count = self.count or 1

    def replace(self, found: Mapping[Read, Data], must_have: Collection[Read]) -> dict[Read, SidecarError]:
        """Publish what is new, and return what cannot be: such a secret stays as it was, and the others change.

        Raises SidecarError, and nothing has changed, for one of `must_have` and when the volumes take nothing.
        """
        secrets = {**self._secrets, **found}
        problems: dict[Read, SidecarError] = {}
        try:
            self._contents(secrets)
        except SidecarError:
            secrets, problems = self._one_by_one(found)
        for read in problems.keys() & set(must_have):
            raise problems[read]
        self._publish(secrets)
        return problems

    def _one_by_one(self, found: Mapping[Read, Data]) -> tuple[dict[Read, Data], dict[Read, SidecarError]]:
        secrets = dict(self._secrets)
        problems: dict[Read, SidecarError] = {}
        for read, data in found.items():
            try:
                self._contents({**secrets, read: data})
                secrets[read] = data
            except SidecarError as error:
                problems[read] = error
        return secrets, problems

    def _contents(self, secrets: Mapping[Read, Data]) -> tuple[dict[str, File], dict[str, File]]:
        return files(self._plan, secrets), {HELPER: self._helper, **environments(self._plan, secrets)}

    def _publish(self, secrets: dict[Read, Data]) -> None:
        secret_files, run_files = self._contents(secrets)
        changed_files, changed_run = publish(self._paths.secrets, secret_files, self._paths.run, run_files)
        self._secrets = secrets
        is_cut_off, self._is_cut_off = self._is_cut_off, False
        if not changed_files and not changed_run and not is_cut_off:
            return
        self.count += 1
        containers = sorted(name.removeprefix("env/") for name in changed_run if name.startswith("env/"))
        self._events.info("published", files=len(changed_files), containers=len(containers))
        if not self._is_running:
            return
        if containers:
            self._events.warning(
                "environment_published",
                containers=containers,
                detail="the environment of a running container does not change; its next start gets the new one",
            )
        self._notify()

    def _notify(self) -> None:
        if self._notification is None:
            return
        signalled = self._notification.send()
        if signalled:
            self._events.info("signalled", process=self._notification.process, count=signalled)
        else:
            self._events.warning(
                "not_signalled",
                process=self._notification.process,
                detail="no process of this name and user is in the pod's shared process namespace",
            )
