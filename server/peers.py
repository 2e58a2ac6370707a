"""Who counts as one peer of a server."""

from __future__ import annotations

import ipaddress


def peer_address(address: str) -> str:
    """The address as people write it: an IPv4 peer of a socket of both families is not `::ffff:192.0.2.1`."""
    if not address.startswith("::ffff:"):
        return address
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return address if mapped is None else str(mapped)


def peer_network(address: str) -> str:
    """The network that counts as one peer: an IPv4 address, or the /64 that one IPv6 host may choose from."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
