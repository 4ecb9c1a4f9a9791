#!/usr/bin/env python3
"""A plug-in in Python, without packages: an SQLite file for each component, with a table of its data contract.

See README.md. Every verb may run again after a crash, so each step checks what is there.
"""

import json
import os
import sqlite3
import sys
from pathlib import Path

TYPES = {
    "BIGINT": "INTEGER", "INT": "INTEGER", "SMALLINT": "INTEGER", "BOOLEAN": "INTEGER",
    "DOUBLE": "REAL", "FLOAT": "REAL", "DECIMAL": "NUMERIC", "NUMBER": "NUMERIC", "NUMERIC": "NUMERIC",
}


def say(line, **fields):
    print(json.dumps({"type": line, **fields}), flush=True)


def fail(kind, message, **fields):
    say("error", kind=kind, message=message, **fields)
    sys.exit(1)


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


class Port:
    """The file of one component."""

    def __init__(self, request):
        self.request = request
        self.owner = request["owner"]
        self.path = Path(request["target"]["settings"]["folder"]) / (self.owner["key"] + ".db")
        specific = request["component"].get("specific") or {}
        self.table = specific.get("table", "data")

    def columns(self):
        """What the data contract asks for: names and SQLite types."""
        contract = self.request["component"].get("dataContract") or {}
        found = {}
        for column in contract.get("schema") or []:
            found[column["name"]] = TYPES.get(str(column.get("dataType", "")).upper(), "TEXT")
        return found

    def open(self):
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    def read(self):
        """What is there: None, or the meta table, the columns and the access list."""
        if not self.path.exists():
            return None
        with self.open() as connection:
            names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "_landfall" not in names:
                # An empty file is what a crash right after creation leaves.
                if names:
                    fail("conflict", f"`{self.path}` is not of `{self.owner['component']}`: move it away")
                return None
            meta = dict(connection.execute("SELECT key, value FROM _landfall"))
            if (meta["component"], meta["environment"]) != (self.owner["component"], self.owner["environment"]):
                fail("conflict", f"`{self.path}` is not of `{self.owner['component']}`, but of `{meta['component']}`")
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(self.table)})")]
            access = {row[0] for row in connection.execute("SELECT name FROM _access")}
            return {"columns": columns, "released": meta.get("released") == "yes", "access": access}

    def changes(self, verb):
        found = self.read()
        resource = f"file {self.path}"
        if verb == "provision":
            if found is None or not found["columns"]:
                return [{"action": "create", "resource": resource, "summary": f"table `{self.table}`"}]
            changes = [
                {"action": "alter", "resource": resource, "summary": f"add column `{name}`"}
                for name in self.columns() if name not in found["columns"]
            ]
            if found["released"]:
                changes.insert(0, {"action": "restore", "resource": resource, "summary": "take the file back"})
            return changes
        if found is None and not self.path.exists():
            return []
        if self.request["remove_data"]:
            return [{"action": "drop", "resource": resource, "summary": "delete the file", "destructive": True}]
        if found is None or found["released"]:
            return []
        return [{"action": "release", "resource": resource, "summary": "keep the file, and mark it as released"}]

    def public_info(self):
        return {
            "path": {"type": "string", "label": "SQLite file", "value": str(self.path)},
            "table": {"type": "string", "label": "Table", "value": self.table},
        }

    def provision(self):
        made = self.changes("provision")
        columns = self.columns()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        say("log", message=f"{len(made)} changes of {self.path.name}")
        with self.open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS _landfall (key TEXT PRIMARY KEY, value TEXT)")
            connection.execute("CREATE TABLE IF NOT EXISTS _access (name TEXT PRIMARY KEY)")
            meta = {"component": self.owner["component"], "environment": self.owner["environment"], "released": "no"}
            connection.executemany("INSERT OR REPLACE INTO _landfall VALUES (?, ?)", meta.items())
            definitions = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items()) or "nothing TEXT"
            connection.execute(f"CREATE TABLE IF NOT EXISTS {quoted(self.table)} ({definitions})")
            there = [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(self.table)})")]
            for number, (name, kind) in enumerate(columns.items(), start=1):
                if name not in there:
                    connection.execute(f"ALTER TABLE {quoted(self.table)} ADD COLUMN {quoted(name)} {kind}")
                say("progress", done=number, total=len(columns), message=f"column `{name}`")
            connection.execute("COMMIT")
        say("result", changed=bool(made), changes=made, public_info=self.public_info(),
            private_info={"owner": self.owner["key"]})

    def unprovision(self):
        made = self.changes("unprovision")
        if self.request["remove_data"]:
            self.path.unlink(missing_ok=True)
        elif self.read() is not None:
            with self.open() as connection:
                connection.execute("INSERT OR REPLACE INTO _landfall VALUES ('released', 'yes')")
        say("result", changed=bool(made), changes=made)

    def access(self):
        if self.read() is None:
            fail("conflict", f"`{self.owner['component']}` is not provisioned: provision it first")
        access = self.request["access"]
        with self.open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            # Revocations first.
            connection.executemany("DELETE FROM _access WHERE name = ?", [(one["name"],) for one in access["revoke"]])
            connection.executemany("INSERT OR IGNORE INTO _access VALUES (?)", [(one["name"],) for one in access["grant"]])
            connection.execute("COMMIT")
        made = [{"action": verb, "resource": f"file {self.path}", "summary": one["name"]}
                for verb in ("revoke", "grant") for one in access[verb]]
        say("result", changed=bool(made), changes=made)


def describe():
    folder = {"type": "object", "required": ["folder"], "properties": {"folder": {"type": "string", "pattern": "^/"}}}
    specific = {"type": "object", "properties": {"table": {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]*$"}}}
    say("result", protocols=["landfall.plugin/1"], name="sqlite-port", version="1.0.0", kinds=["outputport"],
        verbs=["check", "plan", "access", "reverse"], access="recorded", specific={"*": specific}, settings=folder)


def check(port):
    problems = []
    folder = port.path.parent
    if folder.exists() and not os.access(folder, os.W_OK):
        problems.append({"message": f"the folder `{folder}` of the target cannot be written",
                         "fix": "ask the administrator of the target"})
    say("result", problems=problems)


def reverse(request):
    folder = Path(request["target"]["settings"]["folder"])
    params = request["import"]["params"]
    name = params.get("file")
    if not isinstance(name, str) or Path(name).name != name:
        fail("invalid", "`file` is missing", problems=[
            {"path": "params.file", "message": "`file` is missing or no file name", "fix": "name a file of the target"}])
    path = folder / name
    if not path.exists():
        fail("permanent", f"there is no file `{name}` in the folder of the target")
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        table = params.get("table", "data")
        rows = list(connection.execute(f"PRAGMA table_info({quoted(table)})"))
    names = {"INTEGER": "BIGINT", "REAL": "DOUBLE", "NUMERIC": "DECIMAL"}
    schema = [{"name": row[1], "dataType": names.get(row[2], "TEXT")} for row in rows]
    say("result", updates={"spec.mesh.dataContract.schema": schema, "spec.mesh.specific.table": table})


def main():
    verb = sys.argv[-1]
    if verb == "describe":
        return describe()
    request = json.load(sys.stdin)
    if verb == "reverse":
        return reverse(request)
    port = Port(request)
    if verb == "check":
        return check(port)
    if verb == "plan":
        return say("result", changes=port.changes(request["plan_of"]))
    if verb in ("provision", "unprovision", "access"):
        return getattr(port, verb)()
    sys.exit(2)


if __name__ == "__main__":
    main()
