"""Entries are written in one statement and balance in it: checked once for all of them, not once for each."""

from django.db import migrations

CHECKS = """
CREATE FUNCTION ledger_entries_balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong text;
BEGIN
    SELECT checked.public_id INTO wrong
    FROM added
    JOIN billing_ledgeraccount account ON account.id = added.account_id
    JOIN billing_ledgertransaction checked ON checked.id = added.transaction_id
    GROUP BY checked.public_id, account.unit
    HAVING sum(CASE added.direction WHEN 'debit' THEN added.amount ELSE -added.amount END) <> 0
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'ledger transaction % does not balance', wrong
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_balance';
    END IF;
    SELECT checked.public_id INTO wrong
    FROM added
    JOIN billing_ledgeraccount account ON account.id = added.account_id
    JOIN billing_ledgertransaction checked ON checked.id = added.transaction_id
    WHERE account.customer_id <> checked.customer_id
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'ledger transaction % touches an account of another customer', wrong
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_entries_balance';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ledger_entries_balance AFTER INSERT ON billing_ledgerentry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ledger_entries_balance();
DROP TRIGGER ledger_transaction_balances ON billing_ledgerentry;
CREATE OR REPLACE FUNCTION ledger_transaction_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM (SELECT FROM billing_ledgerentry WHERE transaction_id = NEW.id LIMIT 2) entries) < 2 THEN
        RAISE EXCEPTION 'ledger transaction % does not balance', NEW.public_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_transaction_balances';
    END IF;
    RETURN NULL;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0024_archive_events")]

    operations = [migrations.RunSQL(CHECKS)]
