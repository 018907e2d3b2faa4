"""A customer's watermark is made with the customer: requests that bring the first events of one would wait for each
other, each to see whether the other one has made it."""

from django.db import migrations

FROM_THE_START = """
CREATE FUNCTION make_watermark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO billing_watermark (customer_id, version) VALUES (NEW.id, 0);
    RETURN NULL;
END $$;
CREATE TRIGGER customer_has_watermark AFTER INSERT ON accounts_customer
    FOR EACH ROW EXECUTE FUNCTION make_watermark();
INSERT INTO billing_watermark (customer_id, version) SELECT id, 0 FROM accounts_customer ON CONFLICT DO NOTHING;
"""
FROM_FIRST_USE = """
DROP TRIGGER customer_has_watermark ON accounts_customer;
DROP FUNCTION make_watermark;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0029_keep_the_mail_of_sandboxes")]

    operations = [migrations.RunSQL(FROM_THE_START, FROM_FIRST_USE)]
