#!/usr/bin/env bash
# PLUGIN_NAME: a plug-in of Landfall (landfall.plugin/1). It needs jq.
#
# Every verb may run again after a crash, so each one has to reach the same state from wherever an earlier run ended. Put
# the owner ($component, $environment) on what you create, and report a conflict for what has another owner.
set -euo pipefail

if [ "$1" = describe ]; then
  # `specific` is a JSON Schema for each kind; `*` is for all others. Landfall checks it before it runs anything.
  jq -nc '{type: "result", protocols: ["landfall.plugin/1"], name: "PLUGIN_NAME", version: "0.1.0",
    specific: {"*": {type: "object", properties: {}}}}'
  exit
fi

request=$(cat)
IFS=$'\t' read -r key component environment remove_data < <(
  jq -r '[.owner.key, .owner.component, .environment, .remove_data // false] | @tsv' <<< "$request")

log() { jq -nc --arg message "$1" '{type: "log", message: $message}'; }

case $1 in
  provision)
    log "create or update $key of $component in $environment"
    # Your work. What you print with `state` is durable, and in .state of the next request:
    #   jq -nc '{type: "state", state: {step: 1}}'
    jq -nc --arg key "$key" '{type: "result", changed: true,
      public_info: {name: {type: "string", label: "Name", value: $key}}}' ;;
  unprovision)
    log "remove $key, data: $remove_data"
    jq -nc '{type: "result", changed: true}' ;;
  *)
    exit 2 ;;
esac
