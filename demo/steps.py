"""The chapters, in order. Each says what happens, lets it happen, and raises UnexpectedError when it does not."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jsonpatch

from demo import leaks
from demo.container import Ended
from demo.difference import difference
from demo.environment import Scene
from demo.node import Ran
from demo.process import morphisms, run
from demo.scenario import UnexpectedError
from plan.layout import CONTAINER
from sidecar.reasons import Exit

_HERE = Path(__file__).parent
_SECRET = "secret/knative/demo/shop/payments/db"

# Neither the tampered guest nor the stranger.
_LOGINS = ["jwt-demo-demo/shop/payments", "jwt-demo-demo/shop/newsletter"]


def tell(scene: Scene) -> None:
    """The whole story."""
    _plaintext_is_refused(scene)
    _the_secret_moves_to_vault(scene)
    pod = _the_pod_is_rewritten(scene)
    _it_runs_and_gets_the_secret(scene, pod)
    _a_tampered_report_is_refused(scene, pod)
    _another_workload_is_refused(scene, pod)
    _a_plain_node_is_refused(scene, pod)
    _the_secret_is_nowhere(scene, pod)


def _plaintext_is_refused(scene: Scene) -> None:
    scene.story.title("A Service with its password in plain text: its author reads this at `kubectl apply`")
    _refused(scene, scene.webhook.ask("/validate/service", _review("service-review.json")), "secrets/plaintext-env")


def _the_secret_moves_to_vault(scene: Scene) -> None:
    story, openbao = scene.story, scene.openbao
    story.title("So the password moves to Vault, and the Service only names it")
    openbao.put(_SECRET, {"password": scene.password})
    story.say(f"OpenBao {openbao.version} at {openbao.url}: {_SECRET} written, digest {_digest(scene.password)}")
    done = run(morphisms("vault", "setup", "--config", scene.site), {"VAULT_TOKEN": openbao.token})
    if done.returncode != 0:
        raise UnexpectedError(done.stderr.strip())
    story.say(f"`morphisms vault setup` {done.stdout.splitlines()[-1]}: one role and one policy for every Service")
    story.say((_HERE / "service.yaml").read_text())


def _the_pod_is_rewritten(scene: Scene) -> dict[str, Any]:
    scene.story.title("The Service's pod, as Knative's controller made it, before and after admission (excerpt)")
    review = _review("pod-review.json")
    pod: dict[str, Any] = review["request"]["object"]
    if not scene.has_helper:
        scene.story.warn("no C compiler here, hence no exec helper: the secret is shown as a file only")
        _drop_references(pod)
    answer = scene.webhook.ask("/mutate/pod", review)
    if not answer["allowed"]:
        raise UnexpectedError(answer["status"]["message"])
    confidential: dict[str, Any] = jsonpatch.apply_patch(pod, answer["patch"])
    scene.story.raw(difference(pod, confidential, colour=scene.story.colour))
    _allowed(scene, confidential, "judged anew by the webhook, which trusts nothing of its own rewrite")
    return confidential


def _it_runs_and_gets_the_secret(scene: Scene, pod: dict[str, Any]) -> None:
    story = scene.story
    story.title("On node snp-0 its containers run as processes, from the rewritten pod's own fields (SIMULATED SNP)")
    ran = scene.snp.run(pod)
    sidecar, application = ran.containers[0], ran.containers[-1]
    if sidecar.exit_code != Exit.PUBLISHED or len(ran.containers) < 2:
        raise UnexpectedError(sidecar.message.strip() or sidecar.stderr.strip())
    events = {event["event"]: event for event in map(json.loads, sidecar.stderr.splitlines())}
    attested, published = events["attested"], events["published"]
    story.good(CONTAINER, f"attested with {attested['source']} evidence, id {attested['correlation_id']}")
    story.good(CONTAINER, f"published {published['files']} file in {published['uptime_ms']:.0f} ms, then ended: 0")
    record = scene.verifier.explain(attested["correlation_id"])
    if not record["simulated"]:
        raise UnexpectedError("the verifier does not say that the evidence is simulated")
    story.say(f"`morphisms explain` at the verifier: {record['reason']} as {record['subject']}, SIMULATED evidence")
    # Checked before a word of it is shown.
    _expect_digests(scene, application)
    for line in application.stdout.splitlines():
        story.good(application.name, line)
    story.say(f"not applied on this machine: {', '.join(ran.not_applied)}")


def _a_tampered_report_is_refused(scene: Scene, pod: dict[str, Any]) -> None:
    scene.story.title("The same pod, but one bit of the report is flipped after the chip signed it")
    line = _sidecar_refused(scene, scene.tampered.run(pod), Exit.VERIFIER_REFUSED)
    _explained(scene, line, "signature")


def _another_workload_is_refused(scene: Scene, pod: dict[str, Any]) -> None:
    scene.story.title("The same pod and a good report, but another workload's token")
    scene.story.say("of a service account that no appraisal policy names:")
    line = _sidecar_refused(scene, scene.snp.run(pod, account="unknown"), Exit.VERIFIER_REFUSED)
    _explained(scene, line, "no-policy")
    scene.story.say("of Service newsletter, which is believed to be itself, and may not read what belongs to payments:")
    _sidecar_refused(scene, scene.snp.run(pod, account="newsletter"), Exit.VAULT_REFUSED)
    logins = scene.openbao.logins()
    if logins != _LOGINS:
        raise UnexpectedError(f"OpenBao's audit log holds other logins: {', '.join(logins)}")
    scene.story.say(f"OpenBao's own audit log has two logins so far: {' and '.join(logins)}")


def _a_plain_node_is_refused(scene: Scene, pod: dict[str, Any]) -> None:
    story = scene.story
    story.title("The same pod, aimed at the plain node")
    story.say("by nodeName:")
    review = _review("pod-review.json")
    review["request"]["object"] = copy.deepcopy(pod)
    review["request"]["object"]["spec"]["nodeName"] = "plain-0"
    _refused(scene, scene.webhook.ask("/validate/pod", review), "placement/node-name")
    story.say("bound to it past the scheduler's judgement:")
    binding = scene.webhook.ask("/validate/binding", _review("binding-review.json"))
    _refused(scene, binding, "placement/binding-target")
    story.say("run there all the same, as if there were no webhook:")
    _sidecar_refused(scene, scene.plain.run(pod), Exit.EVIDENCE)


def _the_secret_is_nowhere(scene: Scene, pod: dict[str, Any]) -> None:
    scene.story.title("Where the password is not")
    documents = {
        "the applied Service": (_HERE / "service.yaml").read_bytes(),
        "the rewritten pod": json.dumps(pod).encode(),
        "this output": scene.story.text.encode(),
        "the webhook's answers": b"".join(scene.webhook.answers),
    }
    leaks.look_for(scene.password, documents)
    scene.story.good("absent", "in the applied Service and the rewritten pod, which is what etcd would hold")
    files, processes = leaks.look_in_files(scene.password, scene.folder), leaks.look_in_processes(scene.password)
    scene.story.good(
        "absent",
        f"in the webhook's answers, this output, {files} files (all logs) and {processes} processes' argv and env",
    )


def _review(name: str) -> dict[str, Any]:
    review: dict[str, Any] = json.loads((_HERE / name).read_text())
    return review


def _drop_references(pod: dict[str, Any]) -> None:
    for container in pod["spec"]["containers"]:
        container["env"] = [each for each in container["env"] if "vault:" not in each.get("value", "")]


def _allowed(scene: Scene, pod: dict[str, Any], text: str) -> None:
    review = _review("pod-review.json")
    review["request"]["object"] = pod
    answer = scene.webhook.ask("/validate/pod", review)
    if not answer["allowed"]:
        raise UnexpectedError(answer["status"]["message"])
    scene.story.good("allowed", text)


def _refused(scene: Scene, answer: dict[str, Any], rule: str) -> None:
    """By the webhook, and for this reason."""
    causes = answer.get("status", {}).get("details", {}).get("causes", [])
    found = next((cause for cause in causes if cause["reason"] == rule), None)
    if answer["allowed"] or found is None:
        raise UnexpectedError(f"the webhook should have refused this by {rule}")
    scene.story.refused(f"[{rule}] {found['message']}")


def _sidecar_refused(scene: Scene, ran: Ran, exit_code: Exit) -> str:
    """By the pod's first container, which keeps the application from starting; its termination message."""
    first = ran.containers[0]
    if (first.name, first.exit_code) != (CONTAINER, exit_code):
        raise UnexpectedError(
            f"{first.name} ended with {first.exit_code}, not {exit_code.value}: {first.message.strip()}"
        )
    if len(ran.containers) > 1:
        raise UnexpectedError(f"{ran.containers[1].name} was started without its secrets")
    line = first.message.strip()
    scene.story.refused(line)
    return line


def _explained(scene: Scene, line: str, expected: str) -> None:
    """The other side of it: what the verifier's operator reads under the same id."""
    found = re.search(r"correlation id ([0-9a-f]{16})", line)
    if found is None:
        raise UnexpectedError(f"no correlation id: {line}")
    record = scene.verifier.explain(found[1])
    failed = [
        _short(f"{check['id']} {check['actual']}, required {check['required']}")
        for check in (record.get("verdict") or {}).get("checks", ())
        if not check["ok"]
    ]
    text = f"{record['reason']}: {'; '.join(failed) or record['detail']}"
    if expected not in text:
        raise UnexpectedError(f"refused for another reason than {expected}: {text}")
    scene.story.say(f"`morphisms explain` at the verifier: {text}")


def _short(text: str) -> str:
    """Long hexadecimal values cut."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24,}\b", r"\1…", text)


def _expect_digests(scene: Scene, application: Ended) -> None:
    """Of the application's output nothing is shown when it is another one: it may hold the secret."""
    digest = _digest(scene.password)
    expected = [f"file password digest {digest}"]
    if scene.has_helper:
        expected += [f"variable DB_PASSWORD digest {digest}", "variable DB_URL holds DB_PASSWORD"]
    if application.stdout.splitlines() != expected:
        helper = re.search(r"^morphisms-exec: .*", application.stderr, re.MULTILINE)
        reason = helper[0] if helper else f"{application.name} ended with {application.exit_code}"
        raise UnexpectedError(f"the application did not get the secret that is in Vault: {reason}")


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]
