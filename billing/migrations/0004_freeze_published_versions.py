"""A published plan version, its prices, match rows, credits and overage never change."""

from django.db import migrations

FREEZE = """
CREATE FUNCTION refuse_change_of_published_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    version bigint;
BEGIN
    IF TG_TABLE_NAME = 'billing_planversion' THEN
        version := OLD.id;
    ELSIF TG_TABLE_NAME = 'billing_matchrow' THEN
        SELECT version_id INTO version FROM billing_price WHERE id = coalesce(NEW.price_id, OLD.price_id);
    ELSE
        version := coalesce(NEW.version_id, OLD.version_id);
    END IF;
    IF EXISTS (SELECT FROM billing_planversion WHERE id = version AND status = 'published') THEN
        RAISE EXCEPTION 'a published plan version is frozen: make a new version' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER published_is_frozen BEFORE UPDATE OR DELETE ON billing_planversion
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_published_version();
"""

CHILDREN = ("billing_price", "billing_matchrow", "billing_creditterm", "billing_overageterm")


def freeze(table: str) -> migrations.RunSQL:
    return migrations.RunSQL(
        f"CREATE TRIGGER published_is_frozen BEFORE INSERT OR UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change_of_published_version()",
        f"DROP TRIGGER published_is_frozen ON {table}",
    )


class Migration(migrations.Migration):
    dependencies = [("billing", "0003_guard_the_ledger")]

    operations = [
        migrations.RunSQL(
            FREEZE,
            "DROP TRIGGER published_is_frozen ON billing_planversion;"
            "DROP FUNCTION refuse_change_of_published_version() CASCADE",
        ),
        *map(freeze, CHILDREN),
    ]
