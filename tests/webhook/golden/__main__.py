"""`python -m tests.webhook.golden`: write today's answers into the cases, to be reviewed with `git diff`."""

from __future__ import annotations

import yaml

from tests.webhook.golden.golden import CASES, answer, read_case, recorded


def main() -> None:
    for path in sorted(CASES.glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        case = read_case(path)
        for key, value in (("answer", answer(case)), ("recorded", recorded(case))):
            document.pop(key, None)
            if value:
                document[key] = value
        path.write_text(yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True))


if __name__ == "__main__":
    main()
