"""Where the webhook lives, and which replica this is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """`service` in `namespace`; `replica` is this process among its like, such as its pod's name."""

    namespace: str
    service: str
    replica: str

    @property
    def names(self) -> tuple[str, ...]:
        """The Service's DNS names; the first is what API servers ask for."""
        host = f"{self.service}.{self.namespace}"
        return f"{host}.svc", f"{host}.svc.cluster.local", host
