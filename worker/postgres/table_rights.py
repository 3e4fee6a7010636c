"""Why the tables that backups count cannot be read, and the grants that would let them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, LiteralString

from worker.postgres.prerequisites import Lack
from worker.postgres.table_facts import Connect, TableName, fetch_all, mapped_errors


def lacks_of_tables(connect: Connect, names: Iterable[TableName]) -> list[Lack]:
    """Each schema and table, once. A table that is not there lacks no right.

    Raises as connection does.
    """
    found: dict[Lack, None] = {}
    for name in sorted(set(names)):
        with connect(name.database) as connection, mapped_errors():
            wanted = {"schema": name.schema, "table": name.table}
            for row in fetch_all(connection, _RIGHTS, wanted):
                found.update(dict.fromkeys(_of_table(row, name.database)))
    return list(found)


def _of_table(row: Mapping[str, Any], database: str) -> Iterator[Lack]:
    role, schema, table = row["role"], row["schema"], row["table"]
    if not row["enters"]:
        yield _lack(
            f"role {role} may not use schema {schema}",
            f"GRANT USAGE ON SCHEMA {schema} TO {role};",
            database,
        )
    if not row["reads"]:
        yield _lack(
            f"role {role} may not read {table}", f"GRANT SELECT ON {table} TO {role};", database
        )
    if row["is_filtered"]:
        yield _lack(
            f"policies hide rows of {table} from role {role}",
            f"ALTER ROLE {role} BYPASSRLS;",
            database,
        )


def _lack(fact: str, statement: str, database: str) -> Lack:
    return Lack(fact, statement, "at once", database=database)


# A partitioned table is locked by its own name and counted leaf by leaf. No name is resolved by
# the server's search, which would end with an error for a schema that may not be used.
_RIGHTS: Final[LiteralString] = """
SELECT quote_ident(current_user) AS role,
       quote_ident(namespace.nspname) AS schema,
       format('%%I.%%I', namespace.nspname, counted.relname) AS table,
       has_schema_privilege(namespace.oid, 'USAGE') AS enters,
       has_table_privilege(counted.oid, 'SELECT') AS reads,
       row_security_active(counted.oid) AS is_filtered
  FROM pg_class AS root
  JOIN pg_namespace AS home ON home.oid = root.relnamespace
 CROSS JOIN LATERAL (SELECT root.oid AS oid
                     UNION
                     SELECT relid FROM pg_partition_tree(root.oid)
                      WHERE root.relkind = 'p' AND isleaf) AS part
  JOIN pg_class AS counted ON counted.oid = part.oid
  JOIN pg_namespace AS namespace ON namespace.oid = counted.relnamespace
 WHERE home.nspname = %(schema)s AND root.relname = %(table)s
 ORDER BY counted.oid
"""
