#!/usr/bin/env python3
"""PLUGIN_NAME: a plug-in of Landfall (landfall.plugin/1).

Every verb may run again after a crash, so each one has to reach the same state from wherever an earlier run ended. Put
the owner on what you create, and report a conflict for what has another owner.
"""

import json
import sys


def say(line, **fields):
    print(json.dumps({"type": line, **fields}), flush=True)


def fail(kind, message, **fields):
    """kind: invalid, conflict, retryable, unsupported or permanent."""
    say("error", kind=kind, message=message, **fields)
    sys.exit(1)


def describe():
    # `specific` is a JSON Schema for each kind; `*` is for all others. Landfall checks it before it runs anything.
    # Add verbs: "check", "plan", "access", "reverse".
    say("result", protocols=["landfall.plugin/1"], name="PLUGIN_NAME", version="0.1.0", verbs=[],
        specific={"*": {"type": "object", "properties": {}}})


def provision(request):
    key = request["owner"]["key"]
    say("log", message=f"create or update {key}")
    # Your work. What you say with `state` is durable, and in request["state"] of the next run:
    #   say("state", state={"step": 1})
    say("result", changed=True, public_info={"name": {"type": "string", "label": "Name", "value": key}})


def unprovision(request):
    say("log", message=f"remove {request['owner']['key']}, data: {request['remove_data']}")
    say("result", changed=True)


def main():
    verb = sys.argv[-1]
    if verb == "describe":
        return describe()
    request = json.load(sys.stdin)
    if verb == "provision":
        return provision(request)
    if verb == "unprovision":
        return unprovision(request)
    sys.exit(2)


if __name__ == "__main__":
    main()
