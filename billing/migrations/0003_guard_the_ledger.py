"""The ledger's rules, kept by the database whoever writes."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from accounts.rights import append_only, application_role

BALANCES = """
CREATE FUNCTION ledger_transaction_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    checked billing_ledgertransaction;
BEGIN
    IF TG_TABLE_NAME = 'billing_ledgertransaction' THEN
        checked := NEW;
    ELSE
        SELECT * INTO checked FROM billing_ledgertransaction WHERE id = NEW.transaction_id;
    END IF;
    IF (SELECT count(*) FROM billing_ledgerentry WHERE transaction_id = checked.id) < 2 OR EXISTS (
        SELECT FROM billing_ledgerentry entry JOIN billing_ledgeraccount account ON account.id = entry.account_id
        WHERE entry.transaction_id = checked.id
        GROUP BY account.unit
        HAVING sum(CASE entry.direction WHEN 'debit' THEN entry.amount ELSE -entry.amount END) <> 0
    ) THEN
        RAISE EXCEPTION 'ledger transaction % does not balance', checked.public_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transaction_balances';
    END IF;
    IF EXISTS (
        SELECT FROM billing_ledgerentry entry JOIN billing_ledgeraccount account ON account.id = entry.account_id
        WHERE entry.transaction_id = checked.id AND account.customer_id <> checked.customer_id
    ) THEN
        RAISE EXCEPTION 'ledger transaction % touches an account of another customer', checked.public_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transaction_balances';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ledger_transaction_balances AFTER INSERT ON billing_ledgertransaction
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_transaction_balances();
CREATE CONSTRAINT TRIGGER ledger_transaction_balances AFTER INSERT ON billing_ledgerentry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_transaction_balances();
"""
BALANCES_REVERSE = """
DROP TRIGGER ledger_transaction_balances ON billing_ledgertransaction;
DROP TRIGGER ledger_transaction_balances ON billing_ledgerentry;
DROP FUNCTION ledger_transaction_balances();
"""

# An account's sums move with its entries and in no other way: the function runs with the owner's rights, and the
# application has none to change them.
SUMS = """
CREATE FUNCTION ledger_account_sums() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE billing_ledgeraccount account
    SET debits = account.debits + moved.debits, credits = account.credits + moved.credits
    FROM (
        SELECT account_id,
               coalesce(sum(amount) FILTER (WHERE direction = 'debit'), 0) AS debits,
               coalesce(sum(amount) FILTER (WHERE direction = 'credit'), 0) AS credits
        FROM added GROUP BY account_id
    ) moved
    WHERE account.id = moved.account_id;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_account_sums AFTER INSERT ON billing_ledgerentry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ledger_account_sums();
"""
SUMS_REVERSE = """
DROP TRIGGER ledger_account_sums ON billing_ledgerentry;
DROP FUNCTION ledger_account_sums();
"""


def keep_accounts_from_application(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if role := application_role(schema_editor):
        schema_editor.execute(f"REVOKE UPDATE, DELETE ON billing_ledgeraccount FROM {role}")


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_partition_usage_events")]

    operations = [
        append_only("billing_ledgertransaction", "billing_ledgerentry", "billing_alert"),
        migrations.RunSQL(BALANCES, BALANCES_REVERSE),
        migrations.RunSQL(SUMS, SUMS_REVERSE),
        migrations.RunPython(keep_accounts_from_application, migrations.RunPython.noop),
    ]
