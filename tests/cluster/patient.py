"""`morphisms` as it is, but that it waits as long for an API server as the installation's calls wait for the webhook.

A busy machine may give an API server no turn for seconds. What is done when time runs out, tests of the parts say.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import webhook.server
from cli.main import main
from server.kubernetes import lease
from webhook.cluster import lookups

if __name__ == "__main__":
    webhook.server.LIMITS = replace(
        webhook.server.LIMITS, deadline_seconds=28.0, header_seconds=30.0, body_seconds=30.0
    )
    lookups.LOOKUP_SECONDS = 25.0
    lease.RELEASE_SECONDS = 25.0
    sys.exit(main())
