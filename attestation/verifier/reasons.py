"""The reasons for an attestation's outcome: stable codes for the log, metrics and `morphisms explain`."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One code per cause. The guest never sees it."""

    ACCEPTED = "believed"

    NONCE_FOREIGN = "nonce-foreign"  # made by another process, such as another replica, or by no verifier
    NONCE_EXPIRED = "nonce-expired"
    NONCE_REPLAYED = "nonce-replayed"
    TOKEN_MALFORMED = "token-malformed"  # not a JWT of a pod's service account, or an algorithm that is not allowed
    TOKEN_ISSUER = "token-issuer"  # no configured cluster has this issuer
    TOKEN_SIGNATURE = "token-signature"  # no key of any cluster with this issuer made it
    TOKEN_EXPIRED = "token-expired"
    TOKEN_TOO_LONG = "token-too-long"  # valid for longer than the cluster's maxTokenSeconds
    TOKEN_NOT_YET_VALID = "token-not-yet-valid"
    TOKEN_AUDIENCE = "token-audience"
    TOKEN_UNBOUND = "token-unbound"  # of a service account, not of one pod
    TOKEN_WITHDRAWN = "token-withdrawn"  # signed by the cluster, whose TokenReview does not confirm it any more
    POD_MISMATCH = "pod-mismatch"  # the API server knows no such live pod, or another one by this name
    NODE_CHIP = "node-chip"  # the report's CHIP_ID is not of the node that the pod runs on
    EVIDENCE_MALFORMED = "evidence-malformed"
    NO_POLICY = "no-policy"
    TOKEN_DISAGREES = "token-disagrees"  # HOST_DATA names one workload, the pod token another
    VERDICT = "verdict"  # a check failed; the record says which
    BEARER_INVALID = "bearer-invalid"  # made by another process, such as another replica, or by no verifier
    BEARER_EXPIRED = "bearer-expired"
    BEARER_USED = "bearer-used"  # one login was made with it, or the pod attested too often since
    POLICY_CHANGED = "policy-changed"  # removed or edited since the attestation
    ROLE_NOT_ALLOWED = "role-not-allowed"
    CALLER_GONE = "caller-gone"  # the connection was closed before the answer; its login is revoked
    VAULT_REFUSED = "vault-refused"  # the role, its bound claims, or the verifier's key in the mount
    VAULT_DENIED = "vault-denied"
    VAULT_NO_MOUNT = "vault-no-mount"

    SEALED = "sealed"  # this process waits for a secret that people provision
    NO_EVIDENCE = "no-evidence"  # of the verifier's own guest: no report, or its certificates are missing
    CLOCK = "clock"  # the verifier's clock is off: before its build or a revocation list, or far from Vault's
    OVERLOADED = "overloaded"
    POD_TOO_OFTEN = "pod-too-often"
    GUEST_TOO_OFTEN = "guest-too-often"  # logins of one guest without a pod token
    SOURCE_TOO_OFTEN = "source-too-often"
    KEYS_UNAVAILABLE = "keys-unavailable"  # the cluster's JWKS is not available
    TOKEN_KEY_UNKNOWN = "token-key-unknown"  # no cluster's keys, as last fetched, have this id; they are fetched again
    TOKEN_AMBIGUOUS = "token-ambiguous"  # several clusters list the key, and all of them take the token's audience
    POLICIES_UNAVAILABLE = "policies-unavailable"  # Vault has returned no valid set since the start
    POD_UNAVAILABLE = "pod-unavailable"  # the API server does not answer
    CERTIFICATES_UNAVAILABLE = "certificates-unavailable"  # neither guest, cache nor AMD's key service has them yet
    VAULT_SEALED = "vault-sealed"
    VAULT_SLOW = "vault-slow"
    VAULT_UNREACHABLE = "vault-unreachable"
    VAULT_BEHIND = "vault-behind"  # 412: a standby that has not caught up
    VAULT_LIMITED = "vault-limited"
    VAULT_ERROR = "vault-error"
    VAULT_CREDENTIALS = "vault-credentials"  # the verifier's own token is missing, has expired or may not do this
    VAULT_STRANGE = "vault-strange"  # an answer that is not Vault's

    @property
    def is_session(self) -> bool:
        """The guest may begin anew, with the first call: nothing was decided about its evidence."""
        return self in _SESSION

    @property
    def is_retryable(self) -> bool:
        """The guest may try again; every other reason but ACCEPTED is final."""
        return self in _RETRYABLE


_RETRYABLE = frozenset(
    {
        Reason.NONCE_FOREIGN,
        Reason.SEALED,
        Reason.NO_EVIDENCE,
        Reason.CLOCK,
        Reason.OVERLOADED,
        Reason.POD_TOO_OFTEN,
        Reason.GUEST_TOO_OFTEN,
        Reason.SOURCE_TOO_OFTEN,
        Reason.KEYS_UNAVAILABLE,
        Reason.TOKEN_KEY_UNKNOWN,
        Reason.TOKEN_AMBIGUOUS,
        Reason.POLICIES_UNAVAILABLE,
        Reason.POD_UNAVAILABLE,
        Reason.CERTIFICATES_UNAVAILABLE,
        Reason.VAULT_SEALED,
        Reason.VAULT_SLOW,
        Reason.VAULT_UNREACHABLE,
        Reason.VAULT_BEHIND,
        Reason.VAULT_LIMITED,
        Reason.VAULT_ERROR,
        Reason.VAULT_CREDENTIALS,
        Reason.VAULT_STRANGE,
    }
)

_SESSION = frozenset(
    {
        Reason.NONCE_FOREIGN,
        Reason.BEARER_INVALID,
        Reason.BEARER_EXPIRED,
        Reason.BEARER_USED,
        Reason.POLICY_CHANGED,
    }
)


class RefusedError(Exception):
    """Ends one request. `detail` is for the operator and holds no token, nonce or evidence."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail
