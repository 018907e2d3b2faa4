"""Rights of the application's database role, for migrations.

The owner makes tables; the application reads and writes rows. Tables that record facts are append-only for it, and a
trigger refuses changes for everybody, the owner included.
"""

import logging

from django.conf import settings
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

logger = logging.getLogger(__name__)


def application_role(schema_editor: BaseDatabaseSchemaEditor) -> str | None:
    """The quoted role that the application connects as, or None where it is the owner itself."""
    application: str = settings.DATABASES["default"]["USER"]
    if application == schema_editor.connection.settings_dict["USER"]:
        logger.warning("One database role for everything: append-only tables rest on triggers alone.")
        return None
    return schema_editor.quote_name(application)


def _grant(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if not (role := application_role(schema_editor)):
        return
    rows = "SELECT, INSERT, UPDATE, DELETE"
    schema_editor.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    schema_editor.execute(f"GRANT {rows} ON ALL TABLES IN SCHEMA public TO {role}")
    schema_editor.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}")
    schema_editor.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {rows} ON TABLES TO {role}")
    schema_editor.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {role}")


def grant_rows_to_application() -> migrations.RunPython:
    """Tables that exist, and every table made from now on: the application may read and write their rows."""
    return migrations.RunPython(_grant, migrations.RunPython.noop, elidable=False)


def append_only(*tables: str) -> migrations.RunPython:
    """From now on rows of these tables are never changed or deleted: by right and by trigger.

    There is no trigger on TRUNCATE: the application lacks that right, and tests empty tables as the owner.
    """

    def forward(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        role = application_role(schema_editor)
        schema_editor.execute(REFUSE_CHANGE, params=None)
        for table in map(schema_editor.quote_name, tables):
            schema_editor.execute(
                f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
            )
            if role:
                schema_editor.execute(f"REVOKE UPDATE, DELETE ON {table} FROM {role}")

    def backward(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        for table in map(schema_editor.quote_name, tables):
            schema_editor.execute(f"DROP TRIGGER append_only ON {table}")

    return migrations.RunPython(forward, backward, elidable=False)


def changed_only_in(table: str, *columns: str) -> migrations.RunPython:
    """From now on the application changes only these columns of the table's rows, and deletes none."""

    def forward(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        if role := application_role(schema_editor):
            name, allowed = schema_editor.quote_name(table), ", ".join(map(schema_editor.quote_name, columns))
            schema_editor.execute(f"REVOKE UPDATE, DELETE ON {name} FROM {role}")
            schema_editor.execute(f"GRANT UPDATE ({allowed}) ON {name} TO {role}")

    def backward(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
        if role := application_role(schema_editor):
            schema_editor.execute(f"GRANT UPDATE, DELETE ON {schema_editor.quote_name(table)} TO {role}")

    return migrations.RunPython(forward, backward, elidable=False)


REFUSE_CHANGE = """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: correct it by adding rows', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
"""
