"""The steps of the scenario, in order. Each prints a title, acts, and raises UnexpectedError on another result."""

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
from demo.environment import Environment
from demo.node import Ran
from demo.process import morphisms, run
from demo.transcript import UnexpectedError
from plan.codec import read_plan, write_plan
from plan.layout import CONTAINER, PLAN_VARIABLE
from sidecar.reasons import Exit

_HERE = Path(__file__).parent
_SECRET = "secret/knative/demo/shop/payments/db"

# Neither the tampered guest nor the stranger.
_LOGINS = ["jwt-demo-demo/shop/payments", "jwt-demo-demo/shop/newsletter"]


def run_all(environment: Environment) -> None:
    """Every step, in order."""
    _plaintext_is_refused(environment)
    _the_secret_moves_to_vault(environment)
    pod = _the_pod_is_rewritten(environment)
    _it_runs_and_gets_the_secret(environment, pod)
    _a_tampered_report_is_refused(environment, pod)
    _another_workload_is_refused(environment, pod)
    _a_plain_node_is_refused(environment, pod)
    _another_verifier_is_refused(environment, pod)
    _the_secret_is_nowhere(environment, pod)


def _plaintext_is_refused(environment: Environment) -> None:
    environment.transcript.title("A Service with its password in plain text: its author reads this at `kubectl apply`")
    _refused(
        environment,
        environment.webhook.ask("/validate/service", _review("service-review.json")),
        "secrets/plaintext-env",
    )


def _the_secret_moves_to_vault(environment: Environment) -> None:
    transcript, openbao = environment.transcript, environment.openbao
    transcript.title("The password moves to Vault, and the Service names its path")
    openbao.put(_SECRET, {"password": environment.password})
    transcript.say(
        f"OpenBao {openbao.version} at {openbao.url}: {_SECRET} written, digest {_digest(environment.password)}"
    )
    done = run(morphisms("vault", "setup", "--config", environment.site), {"VAULT_TOKEN": openbao.token})
    if done.returncode != 0:
        raise UnexpectedError(done.stderr.strip())
    transcript.say(f"`morphisms vault setup` {done.stdout.splitlines()[-1]}: one role and one policy for every Service")
    transcript.say((_HERE / "service.yaml").read_text())


def _the_pod_is_rewritten(environment: Environment) -> dict[str, Any]:
    environment.transcript.title(
        "The Service's pod, as Knative's controller made it, before and after admission (excerpt)"
    )
    review = _review("pod-review.json")
    pod: dict[str, Any] = review["request"]["object"]
    if not environment.has_helper:
        environment.transcript.warn("no C compiler here, hence no exec helper: the secret is shown as a file only")
        _drop_references(pod)
    answer = environment.webhook.ask("/mutate/pod", review)
    if not answer["allowed"]:
        raise UnexpectedError(answer["status"]["message"])
    confidential: dict[str, Any] = jsonpatch.apply_patch(pod, answer["patch"])
    environment.transcript.raw(difference(pod, confidential, colour=environment.transcript.colour))
    _allowed(environment, confidential, "validated again by the webhook, which does not trust its own rewrite")
    return confidential


def _it_runs_and_gets_the_secret(environment: Environment, pod: dict[str, Any]) -> None:
    transcript = environment.transcript
    transcript.title(
        "On node snp-0 its containers run as processes, from the rewritten pod's own fields (SIMULATED SNP)"
    )
    ran = environment.snp.run(pod)
    sidecar, application = ran.containers[0], ran.containers[-1]
    if sidecar.exit_code != Exit.PUBLISHED or len(ran.containers) < 2:
        raise UnexpectedError(sidecar.message.strip() or sidecar.stderr.strip())
    events = {event["event"]: event for event in map(json.loads, sidecar.stderr.splitlines())}
    attested, published = events["attested"], events["published"]
    transcript.good(CONTAINER, f"attested with {attested['source']} evidence, id {attested['correlation_id']}")
    transcript.good(
        CONTAINER, f"published {published['files']} file in {published['uptime_ms']:.0f} ms, then exited: 0"
    )
    record = environment.verifier.explain(attested["correlation_id"])
    if not record["simulated"]:
        raise UnexpectedError("the verifier does not say that the evidence is simulated")
    transcript.say(
        f"`morphisms explain` at the verifier: {record['reason']} as {record['subject']}, SIMULATED evidence"
    )
    # Checked before any of it is shown.
    _expect_digests(environment, application)
    for line in application.stdout.splitlines():
        transcript.good(application.name, line)
    transcript.say(f"not applied on this machine: {', '.join(ran.not_applied)}")


def _a_tampered_report_is_refused(environment: Environment, pod: dict[str, Any]) -> None:
    environment.transcript.title("The same pod, but one bit of the report is flipped after the chip signed it")
    line = _sidecar_refused(environment, environment.tampered.run(pod), Exit.VERIFIER_REFUSED)
    _explained(environment, line, "signature")


def _another_workload_is_refused(environment: Environment, pod: dict[str, Any]) -> None:
    environment.transcript.title("The same pod and a good report, but another workload's token")
    environment.transcript.say("of a service account that no appraisal policy names:")
    line = _sidecar_refused(environment, environment.snp.run(pod, account="unknown"), Exit.VERIFIER_REFUSED)
    _explained(environment, line, "no-policy")
    environment.transcript.say(
        "of Service newsletter, which the verifier accepts, and which may not read payments' secret:"
    )
    _sidecar_refused(environment, environment.snp.run(pod, account="newsletter"), Exit.VAULT_REFUSED)
    logins = environment.openbao.logins()
    if logins != _LOGINS:
        raise UnexpectedError(f"OpenBao's audit log holds other logins: {', '.join(logins)}")
    environment.transcript.say(f"OpenBao's own audit log has two logins so far: {' and '.join(logins)}")


def _a_plain_node_is_refused(environment: Environment, pod: dict[str, Any]) -> None:
    transcript = environment.transcript
    transcript.title("The same pod, aimed at the plain node")
    transcript.say("by nodeName:")
    review = _review("pod-review.json")
    review["request"]["object"] = copy.deepcopy(pod)
    review["request"]["object"]["spec"]["nodeName"] = "plain-0"
    _refused(environment, environment.webhook.ask("/validate/pod", review), "placement/node-name")
    transcript.say("bound to it without the scheduler:")
    binding = environment.webhook.ask("/validate/binding", _review("binding-review.json"))
    _refused(environment, binding, "placement/binding-target")
    transcript.say("run there without the webhook's consent:")
    _sidecar_refused(environment, environment.plain.run(pod), Exit.EVIDENCE)


def _another_verifier_is_refused(environment: Environment, pod: dict[str, Any]) -> None:
    transcript = environment.transcript
    transcript.title("The verifier, which proves itself to each pod first; then another one in its place")
    transcript.say(
        f"`morphisms kms attest` at the verifier, as each of the pods above did: {environment.verifier.attest()}"
    )
    with environment.impostor() as impostor:
        transcript.say("the same pod, led to a verifier with the same keys, certificate and policies in another guest:")
        _sidecar_refused(environment, environment.snp.run(_led_to(pod, impostor.url)), Exit.VERIFIER_NOT_ATTESTED)
        transcript.say(f"`morphisms kms attest` there: {impostor.attest()}")
        if impostor.has_records():
            raise UnexpectedError("the pod has told the other verifier something about itself")


def _led_to(pod: dict[str, Any], url: str) -> dict[str, Any]:
    """The pod whose plan names this verifier: in place of a network that leads it there."""
    led = copy.deepcopy(pod)
    (container,) = (each for each in led["spec"]["initContainers"] if each["name"] == CONTAINER)
    (variable,) = (each for each in container["env"] if each["name"] == PLAN_VARIABLE)
    plan = read_plan(variable["value"])
    variable["value"] = write_plan(plan._replace(verifier=plan.verifier._replace(url=url)))
    return led


def _the_secret_is_nowhere(environment: Environment, pod: dict[str, Any]) -> None:
    environment.transcript.title("Where the password does not appear")
    documents = {
        "the applied Service": (_HERE / "service.yaml").read_bytes(),
        "the rewritten pod": json.dumps(pod).encode(),
        "this output": environment.transcript.text.encode(),
        "the webhook's answers": b"".join(environment.webhook.answers),
    }
    leaks.look_for(environment.password, documents)
    environment.transcript.good(
        "absent", "in the applied Service and the rewritten pod, the two objects that etcd would hold"
    )
    files, processes = (
        leaks.look_in_files(environment.password, environment.folder),
        leaks.look_in_processes(environment.password),
    )
    environment.transcript.good(
        "absent",
        f"in the webhook's answers, this output, {files} files (all logs) and {processes} processes' argv and env",
    )


def _review(name: str) -> dict[str, Any]:
    review: dict[str, Any] = json.loads((_HERE / name).read_text())
    return review


def _drop_references(pod: dict[str, Any]) -> None:
    for container in pod["spec"]["containers"]:
        container["env"] = [each for each in container["env"] if "vault:" not in each.get("value", "")]


def _allowed(environment: Environment, pod: dict[str, Any], text: str) -> None:
    review = _review("pod-review.json")
    review["request"]["object"] = pod
    answer = environment.webhook.ask("/validate/pod", review)
    if not answer["allowed"]:
        raise UnexpectedError(answer["status"]["message"])
    environment.transcript.good("allowed", text)


def _refused(environment: Environment, answer: dict[str, Any], rule: str) -> None:
    """Print the webhook's refusal; it has to give this rule."""
    causes = answer.get("status", {}).get("details", {}).get("causes", [])
    found = next((cause for cause in causes if cause["reason"] == rule), None)
    if answer["allowed"] or found is None:
        raise UnexpectedError(f"the webhook should have refused this by {rule}")
    environment.transcript.refused(f"[{rule}] {found['message']}")


def _sidecar_refused(environment: Environment, ran: Ran, exit_code: Exit) -> str:
    """Print and return the termination message of the first container, without which no application starts."""
    first = ran.containers[0]
    if (first.name, first.exit_code) != (CONTAINER, exit_code):
        raise UnexpectedError(
            f"{first.name} exited with {first.exit_code}, not {exit_code.value}: {first.message.strip()}"
        )
    if len(ran.containers) > 1:
        raise UnexpectedError(f"{ran.containers[1].name} was started without its secrets")
    line = first.message.strip()
    environment.transcript.refused(line)
    return line


def _explained(environment: Environment, line: str, expected: str) -> None:
    """Print the verifier's record under the same id, as its operator reads it."""
    found = re.search(r"correlation id ([0-9a-f]{16})", line)
    if found is None:
        raise UnexpectedError(f"no correlation id: {line}")
    record = environment.verifier.explain(found[1])
    failed = [
        _short(f"{check['id']} {check['actual']}, required {check['required']}")
        for check in (record.get("verdict") or {}).get("checks", ())
        if check["ok"] is False
    ]
    text = f"{record['reason']}: {'; '.join(failed) or record['detail']}"
    if expected not in text:
        raise UnexpectedError(f"refused for another reason than {expected}: {text}")
    environment.transcript.say(f"`morphisms explain` at the verifier: {text}")


def _short(text: str) -> str:
    """The text with long hexadecimal values shortened."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24,}\b", r"\1…", text)


def _expect_digests(environment: Environment, application: Ended) -> None:
    """Raise UnexpectedError unless the application printed the digests. Other output may be secret: it is not shown."""
    digest = _digest(environment.password)
    expected = [f"file password digest {digest}"]
    if environment.has_helper:
        expected += [f"variable DB_PASSWORD digest {digest}", "variable DB_URL holds DB_PASSWORD"]
    if application.stdout.splitlines() != expected:
        helper = re.search(r"^morphisms-exec: .*", application.stderr, re.MULTILINE)
        reason = helper[0] if helper else f"{application.name} exited with {application.exit_code}"
        raise UnexpectedError(f"the application did not get the secret that is in Vault: {reason}")


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]
