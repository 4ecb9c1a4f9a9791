#!/usr/bin/env bash
# A plug-in in bash and jq: one file for each component, with `specific.text` in it. See README.md.
set -euo pipefail

if [ "$1" = describe ]; then
  jq -nc '{type: "result", protocols: ["landfall.plugin/1"], name: "notes", version: "1.0.0", verbs: ["plan"],
    specific: {"*": {type: "object", required: ["text"], properties: {text: {type: "string"}}}},
    settings: {type: "object", required: ["folder"], properties: {folder: {type: "string", pattern: "^/"}}}}'
  exit
fi

# One call for what is short and has no line breaks, one for the text.
request=$(cat)
IFS=$'\t' read -r folder key remove_data plan_of < <(
  jq -r '[.target.settings.folder, .owner.key, .remove_data // false, .plan_of // ""] | @tsv' <<< "$request")
text=$(jq -r '.component.specific.text // ""' <<< "$request")
note=$folder/$key

# Changes to make for provision or unprovision, one per line: action and summary.
changes() {
  case $1 in
    provision)
      if [ ! -e "$note" ]; then echo "create write the note"
      elif [ "$(cat "$note")" != "$text" ] || [ -e "$note.released" ]; then echo "alter rewrite the note"
      fi ;;
    unprovision)
      if [ ! -e "$note" ]; then :
      elif [ "$remove_data" = true ]; then echo "drop delete the note"
      elif [ ! -e "$note.released" ]; then echo "release keep the note, and mark it as released"
      fi ;;
  esac
}

list() {
  jq -Rnc --arg note "$note" '[inputs | capture("^(?<action>\\w+) (?<summary>.*)")
    | {action, resource: ("file " + $note), summary, destructive: (.action == "drop")}]'
}

case $1 in
  plan)
    changes "$plan_of" | list | jq -c '{type: "result", changes: .}' ;;
  provision)
    made=$(changes provision | list)
    mkdir -p "$folder"
    echo "$text" > "$note.draft"
    mv "$note.draft" "$note"
    rm -f "$note.released"
    jq -nc --arg note "$note" --argjson made "$made" '{type: "result", changed: ($made != []), changes: $made,
      public_info: {path: {type: "string", label: "Path", value: $note}}}' ;;
  unprovision)
    made=$(changes unprovision | list)
    if [ "$remove_data" = true ]; then rm -f "$note" "$note.released" "$note.draft"
    elif [ -e "$note" ]; then touch "$note.released"
    fi
    jq -nc --argjson made "$made" '{type: "result", changed: ($made != []), changes: $made}' ;;
  *)
    exit 2 ;;
esac
