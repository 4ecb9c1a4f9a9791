#!/usr/bin/env python3
"""Reads an Iceberg table of Landfall's lakehouse with somebody else's readers and prints JSON.

    read_iceberg.py --catalog /abs/catalog.db --warehouse /abs/warehouse --table NAMESPACE.TABLE
                    [--readers pyiceberg,duckdb]

{"pyiceberg": {"columns": [{"name", "type", "doc", "required"}], "identifier": [...], "rows": [{...}],
               "properties": {...}, "location", "metadata_location", "snapshots"},
 "duckdb":    {"columns": [...], "rows": [{...}]}}

DuckDB reports neither docs nor required columns of an Iceberg table: they are null there. Values that JSON does not
have (decimals, dates, bytes) are texts. Needs pyiceberg[sql-sqlite,pyarrow], duckdb, and the wheels
duckdb-extension-{avro,httpfs,iceberg}; makes no request to the network.
"""

import argparse
import base64
import glob
import importlib.util
import json
import os


def plain(value):
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return base64.b16encode(value).decode().lower()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def with_pyiceberg(arguments):
    from pyiceberg.catalog.sql import SqlCatalog

    # The name is part of the key of every row in the catalog.
    catalog = SqlCatalog(
        "landfall",
        uri=f"sqlite:///{arguments.catalog}",
        warehouse=f"file://{arguments.warehouse}",
        init_catalog_tables="false",
    )
    table = catalog.load_table(arguments.table)
    schema = table.schema()
    return {
        "columns": [
            {"name": field.name, "type": str(field.field_type), "doc": field.doc, "required": field.required}
            for field in schema.fields
        ],
        "identifier": sorted(schema.identifier_field_names()),
        "rows": [plain(row) for row in table.scan().to_arrow().to_pylist()],
        "properties": dict(table.properties),
        "location": table.location(),
        "metadata_location": table.metadata_location,
        "snapshots": len(table.metadata.snapshots),
    }


def extension(name):
    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    folder = package.submodule_search_locations[0]
    [path] = glob.glob(os.path.join(folder, "**", f"{name}.duckdb_extension"), recursive=True)
    return path


def with_duckdb(metadata_location):
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name in ("avro", "httpfs", "iceberg"):
        connection.execute(f"INSTALL '{extension(name)}'")
        connection.execute(f"LOAD {name}")
    cursor = connection.execute("SELECT * FROM iceberg_scan(?)", [metadata_location.removeprefix("file://")])
    description = cursor.description
    # Through Arrow: DuckDB's own conversion of timestamps with a zone needs another package.
    rows = cursor.to_arrow_table().to_pylist()
    return {
        "columns": [
            {"name": column[0], "type": str(column[1]), "doc": None, "required": None}
            for column in description
        ],
        "rows": [plain(row) for row in rows],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", required=True, help="absolute path of the SQLite file")
    parser.add_argument("--warehouse", required=True, help="absolute path of the warehouse")
    parser.add_argument("--table", required=True, help="NAMESPACE.TABLE")
    parser.add_argument("--readers", default="pyiceberg,duckdb")
    arguments = parser.parse_args()
    readers = arguments.readers.split(",")
    read = with_pyiceberg(arguments)
    answer = {}
    if "pyiceberg" in readers:
        answer["pyiceberg"] = read
    if "duckdb" in readers:
        answer["duckdb"] = with_duckdb(read["metadata_location"])
    print(json.dumps(answer, indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
