"""What schemathesis cannot know of the contracts: what a good descriptor is, and which tokens exist.

Loaded by `make conformance`. A part of the generated requests gets a descriptor that must be accepted, and a part of
the generated tokens is replaced by one that the server gave away before. Two more checks look at the answers.
"""

from pathlib import Path

import schemathesis
import yaml

PRODUCT = (Path(__file__).parents[2] / "examples" / "cashflow.yaml").read_text()
COMPONENTS = [component["id"] for component in yaml.safe_load(PRODUCT)["components"]]

# descriptorKind -> descriptors that are good for it
GOOD = {
    "DATAPRODUCT_DESCRIPTOR": [PRODUCT],
    "COMPONENT_DESCRIPTOR": [
        yaml.safe_dump({"dataProduct": yaml.safe_load(PRODUCT), "componentIdToProvision": component})
        for component in COMPONENTS
    ],
}

# What came with a 202, per operation that gives tokens away.
tokens = {"validate": [], "provision": [], "reverse-provisioning": []}


def pick(choices, seed):
    """One of the choices, the same one for the same seed and choices; or None, half the time."""
    number = sum(seed.encode("utf-8", "replace"))
    return choices[number // 2 % len(choices)] if choices and number % 2 == 0 else None


def family(path):
    """Where the token of a path belongs: `/v1/provision/{token}/status` -> provision.

    In all contracts, the operation comes second, after a version or a prefix with a version.
    """
    name = path.removeprefix("/datamesh.airbytespecificprovisioner").split("/")[2]
    return {"unprovision": "provision", "updateacl": "provision"}.get(name, name)


@schemathesis.hook
def map_body(context, body):
    if isinstance(body, dict):
        good = GOOD.get(body.get("descriptorKind"), []) if isinstance(body.get("descriptorKind"), str) else []
        if isinstance(body.get("descriptor"), str):
            body["descriptor"] = pick(good, body["descriptor"]) or body["descriptor"]
        info = body.get("provisionInfo")
        if isinstance(info, dict) and isinstance(info.get("request"), str):
            info["request"] = pick(GOOD["COMPONENT_DESCRIPTOR"], info["request"]) or info["request"]
    return body


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters and isinstance(path_parameters.get("token"), str):
        known = pick(tokens[family(context.operation.path)], path_parameters["token"])
        path_parameters["token"] = known or path_parameters["token"]
    return path_parameters


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code == 202:
        text = response.content.decode().strip('"')
        tokens[family(case.operation.path)].append(text)


def answers_with_a_verdict(case):
    return case.operation.definition.raw.get("operationId") == "validate"


@schemathesis.check
def good_descriptor_is_accepted(ctx, response, case):
    body = case.body
    if not case.meta or not case.meta.generation.mode.is_positive or not isinstance(body, dict):
        return
    if body.get("operation") == "UPDATEACL":
        return  # a plan of access for what is not there yet
    if body.get("descriptor") in GOOD.get(body.get("descriptorKind"), []):
        assert 200 <= response.status_code < 300, f"a good descriptor got {response.status_code}"
        if answers_with_a_verdict(case):
            assert response.json() == {"valid": True}, "a good descriptor is not valid"


@schemathesis.check
def refusal_explains_itself(ctx, response, case):
    """A refusal names at least one problem, and validate refuses what does not fit the schema."""
    if response.status_code == 400:
        refusal = response.json()
        assert refusal.get("errors") or refusal.get("message"), "a refusal without a reason"
    if response.status_code == 200 and answers_with_a_verdict(case):
        result = response.json()
        if not result["valid"]:
            assert result["error"]["errors"], "not valid, without a reason"
        if case.meta and case.meta.generation.mode.is_negative:
            assert not result["valid"], "valid, although it does not fit the schema"
