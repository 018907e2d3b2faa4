"""A row cannot be moved out of a published version either, and whoever writes a draft waits for its publication."""

from django.db import migrations

FREEZE = """
CREATE OR REPLACE FUNCTION refuse_change_of_published_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched bigint[];
    frozen boolean;
BEGIN
    IF TG_TABLE_NAME = 'billing_planversion' THEN
        frozen := OLD.status = 'published';
    ELSE
        IF TG_TABLE_NAME = 'billing_matchrow' THEN
            SELECT array_agg(version_id) INTO touched FROM billing_price WHERE id IN (NEW.price_id, OLD.price_id);
        ELSE
            touched := ARRAY[NEW.version_id, OLD.version_id];
        END IF;
        -- Lock first, look then: a publication that is under way is waited for and seen.
        SELECT bool_or(status = 'published') INTO frozen
        FROM (SELECT status FROM billing_planversion WHERE id = ANY (touched) FOR SHARE) AS locked;
    END IF;
    IF frozen THEN
        RAISE EXCEPTION 'a published plan version is frozen: make a new version' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_link_outbox_messages")]

    operations = [migrations.RunSQL(FREEZE, migrations.RunSQL.noop)]
