"""Which Service the webhook is, and which of its replicas this process is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """`service` in `namespace`; `replica` identifies this process, such as by its pod's name."""

    namespace: str
    service: str
    replica: str

    @property
    def names(self) -> tuple[str, ...]:
        """The Service's DNS names; API servers use the first."""
        host = f"{self.service}.{self.namespace}"
        return f"{host}.svc", f"{host}.svc.cluster.local", host
