"""Minimums, trials and add-ons; amounts for one customer, coupons, and what usage costs the vendor."""

import functools
from decimal import Decimal

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

import accounts.ids
from accounts.rights import append_only

# A version that is published only ever retires; whatever is no draft stays as it is.
FREEZE = """
CREATE OR REPLACE FUNCTION refuse_change_of_published_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched bigint[];
    frozen boolean;
    retiring text[] := ARRAY['status', 'retired_at'];
BEGIN
    IF TG_TABLE_NAME = 'billing_planversion' THEN
        frozen := OLD.status <> 'draft';
        IF TG_OP = 'UPDATE' AND OLD.status = 'published' AND NEW.status = 'retired' THEN
            frozen := to_jsonb(NEW) - retiring <> to_jsonb(OLD) - retiring;
        END IF;
    ELSE
        IF TG_TABLE_NAME = 'billing_matchrow' THEN
            SELECT array_agg(version_id) INTO touched FROM billing_price WHERE id IN (NEW.price_id, OLD.price_id);
        ELSE
            touched := ARRAY[NEW.version_id, OLD.version_id];
        END IF;
        -- Lock first, look then: a publication that is under way is waited for and seen.
        SELECT bool_or(status <> 'draft') INTO frozen
        FROM (SELECT status FROM billing_planversion WHERE id = ANY (touched) FOR SHARE) AS locked;
    END IF;
    IF frozen THEN
        RAISE EXCEPTION 'a published plan version is frozen: make a new version' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN coalesce(NEW, OLD);
END $$
"""

# What was agreed is never rewritten; the columns that a trigger names may change, such as an end.
AGREED = """
CREATE FUNCTION refuse_change_of_what_was_agreed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    free text[] := TG_ARGV;
BEGIN
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - free = to_jsonb(OLD) - free THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'what was agreed in % does not change: end it, and make a new one', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$
"""


def freeze(table: str, *free: str) -> migrations.RunSQL:
    columns = ", ".join(f"'{column}'" for column in free)
    return migrations.RunSQL(
        f"CREATE TRIGGER agreed_is_frozen BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION refuse_change_of_what_was_agreed({columns})",
        f"DROP TRIGGER agreed_is_frozen ON {table}",
    )


AMOUNT = '"^[0-9]{1,26}([.][0-9]{1,12})?$"'
TIERS = f"""
    jsonb_typeof(tiers) = 'array' AND jsonb_array_length(tiers) = jsonb_array_length(jsonb_path_query_array(tiers,
        '$[*] ? (@.unit_amount like_regex {AMOUNT} && @.flat_amount like_regex {AMOUNT}
                 && (@.up_to == null || @.up_to like_regex {AMOUNT}))'))
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_keep_only_finished_answers"),
        ("billing", "0018_backfill_meters"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Coupon",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "key",
                    models.CharField(
                        max_length=128,
                        unique=True,
                        validators=[
                            django.core.validators.RegexValidator(
                                "^[A-Za-z0-9._:-]{1,128}$",
                                "Use 1 to 128 letters, digits, dots, underscores, colons or hyphens.",
                            )
                        ],
                    ),
                ),
                ("name", models.CharField(help_text="As it stands on the invoice.", max_length=200)),
                (
                    "percent",
                    models.DecimalField(
                        blank=True, decimal_places=12, help_text="0 to 100; or an amount.", max_digits=38, null=True
                    ),
                ),
                (
                    "amount",
                    models.DecimalField(
                        blank=True, decimal_places=12, help_text="Off each billing period.", max_digits=38, null=True
                    ),
                ),
                ("currency", models.CharField(blank=True, help_text="Of the amount.", max_length=3)),
                (
                    "duration",
                    models.CharField(
                        choices=[("once", "Once"), ("periods", "A number of billing periods"), ("forever", "Forever")],
                        default="once",
                        max_length=8,
                    ),
                ),
                (
                    "periods",
                    models.PositiveSmallIntegerField(
                        blank=True, help_text="How many billing periods it lasts.", null=True
                    ),
                ),
                (
                    "redeem_by",
                    models.DateTimeField(blank=True, help_text="Nobody can redeem it from then on.", null=True),
                ),
                ("max_redemptions", models.PositiveIntegerField(blank=True, null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["key"],
            },
        ),
        migrations.CreateModel(
            name="CouponRedemption",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField(blank=True, help_text="Set when it was taken off.", null=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["starts_at", "id"],
            },
        ),
        migrations.CreateModel(
            name="PriceOverride",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "unit_amount",
                    models.DecimalField(decimal_places=12, default=0, help_text="Of a per-unit price.", max_digits=38),
                ),
                ("tiers", models.JSONField(blank=True, default=list, help_text="Of a graduated or volume price.")),
                (
                    "package_size",
                    models.DecimalField(decimal_places=12, default=1, help_text="Of a package price.", max_digits=38),
                ),
                (
                    "package_amount",
                    models.DecimalField(
                        decimal_places=12,
                        default=0,
                        help_text="Of a package price: what each started package costs.",
                        max_digits=38,
                    ),
                ),
                (
                    "rate",
                    models.DecimalField(
                        decimal_places=12, default=0, help_text="Of a percentage price, in percent.", max_digits=38
                    ),
                ),
                (
                    "fixed_amount",
                    models.DecimalField(
                        decimal_places=12, default=0, help_text="Of a percentage price: per event.", max_digits=38
                    ),
                ),
                (
                    "included",
                    models.DecimalField(
                        decimal_places=12,
                        default=0,
                        help_text="Free quantity of this row in each billing period.",
                        max_digits=38,
                    ),
                ),
                (
                    "minimum_amount",
                    models.DecimalField(
                        blank=True,
                        decimal_places=12,
                        help_text="The least that this row costs in a billing period: added at its end.",
                        max_digits=38,
                        null=True,
                    ),
                ),
                (
                    "maximum_amount",
                    models.DecimalField(
                        blank=True,
                        decimal_places=12,
                        help_text="The most that this row costs in a billing period.",
                        max_digits=38,
                        null=True,
                    ),
                ),
                (
                    "public_id",
                    models.CharField(
                        default=functools.partial(accounts.ids.new_id, "ovr"),
                        editable=False,
                        max_length=40,
                        unique=True,
                    ),
                ),
                ("starts_at", models.DateTimeField()),
                ("ends_at", models.DateTimeField(blank=True, null=True)),
                ("reason", models.CharField(blank=True, max_length=500)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["starts_at", "id"],
            },
        ),
        migrations.CreateModel(
            name="UnitCost",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("where", models.JSONField(blank=True, default=dict)),
                ("currency", models.CharField(default="USD", help_text="ISO 4217, in capitals.", max_length=3)),
                ("unit_amount", models.DecimalField(decimal_places=12, max_digits=38)),
                (
                    "per",
                    models.DecimalField(
                        decimal_places=12,
                        default=1,
                        help_text="The quantity that the amount buys, for instance 1000000.",
                        max_digits=38,
                    ),
                ),
                ("effective_at", models.DateTimeField()),
                ("source", models.CharField(blank=True, help_text="Where the amount comes from.", max_length=200)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "ordering": ["meter", "effective_at", "id"],
            },
        ),
        migrations.RemoveConstraint(
            model_name="planversion",
            name="version_published_at_fits_status",
        ),
        migrations.AddField(
            model_name="creditterm",
            name="every",
            field=models.CharField(
                choices=[("period", "Each billing period"), ("month", "Each month")], default="period", max_length=8
            ),
        ),
        migrations.AddField(
            model_name="creditterm",
            name="rollover_max",
            field=models.DecimalField(
                decimal_places=12,
                default=0,
                help_text="What is left moves to the next ones once, up to this amount.",
                max_digits=38,
            ),
        ),
        migrations.AddField(
            model_name="matchrow",
            name="minimum_amount",
            field=models.DecimalField(
                blank=True,
                decimal_places=12,
                help_text="The least that this row costs in a billing period: added at its end.",
                max_digits=38,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="plan",
            name="is_add_on",
            field=models.BooleanField(
                default=False,
                help_text="Only sold beside another plan, to whose subscription it is added.",
                verbose_name="add-on",
            ),
        ),
        migrations.AddField(
            model_name="planversion",
            name="minimum_spend",
            field=models.DecimalField(
                blank=True,
                decimal_places=12,
                help_text="The least that a billing period costs, in the plan's currency.",
                max_digits=38,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="planversion",
            name="retired_at",
            field=models.DateTimeField(
                editable=False, help_text="No subscription begins with it since then.", null=True
            ),
        ),
        migrations.AddField(
            model_name="planversion",
            name="trial_days",
            field=models.PositiveSmallIntegerField(default=0, help_text="Days before the first base fee is due."),
        ),
        migrations.AddField(
            model_name="price",
            name="minimum_amount",
            field=models.DecimalField(
                blank=True,
                decimal_places=12,
                help_text="The least that this row costs in a billing period: added at its end.",
                max_digits=38,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="beside",
            field=models.ForeignKey(
                editable=False,
                help_text="Of an add-on: the subscription that it is added to, and whose billing periods it shares.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="add_ons",
                to="billing.subscription",
            ),
        ),
        migrations.AlterField(
            model_name="planversion",
            name="status",
            field=models.CharField(
                choices=[("draft", "Draft"), ("published", "Published"), ("retired", "Retired")],
                default="draft",
                editable=False,
                max_length=16,
            ),
        ),
        migrations.AddConstraint(
            model_name="creditterm",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("rollover_max__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("rollover_max__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="credit_term_rollover_max_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="creditterm",
            constraint=models.CheckConstraint(
                condition=models.Q(("every__in", ["period", "month"])), name="credit_term_every_is_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="matchrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("minimum_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("minimum_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="match_row_minimum_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="planversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("published_at", None), ("retired_at", None), ("status", "draft")),
                    models.Q(("published_at__isnull", False), ("retired_at", None), ("status", "published")),
                    models.Q(("published_at__isnull", False), ("retired_at__isnull", False), ("status", "retired")),
                    _connector="OR",
                ),
                name="version_published_at_fits_status",
            ),
        ),
        migrations.AddConstraint(
            model_name="planversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("minimum_spend__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("minimum_spend__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="version_minimum_spend_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="price",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("minimum_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("minimum_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="price_minimum_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="coupon",
            constraint=models.CheckConstraint(
                condition=models.Q(("key__regex", "^[A-Za-z0-9._:-]{1,128}$")), name="coupon_key_is_a_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="coupon",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("amount", None),
                        ("currency", ""),
                        ("percent__gt", 0),
                        ("percent__isnull", False),
                        ("percent__lte", 100),
                    ),
                    models.Q(("amount__isnull", False), ("currency__regex", "^[A-Z]{3}$"), ("percent", None)),
                    _connector="OR",
                ),
                name="coupon_is_a_percentage_or_an_amount",
            ),
        ),
        migrations.AddConstraint(
            model_name="coupon",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("duration", "periods"), ("periods__gte", 1)),
                    models.Q(("duration__in", ["once", "forever"]), ("periods", None)),
                    _connector="OR",
                ),
                name="coupon_periods_fit_duration",
            ),
        ),
        migrations.AddConstraint(
            model_name="coupon",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("amount__gt", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="coupon_amount_positive",
            ),
        ),
        migrations.AddField(
            model_name="couponredemption",
            name="coupon",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="redemptions", to="billing.coupon"
            ),
        ),
        migrations.AddField(
            model_name="couponredemption",
            name="subscription",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="coupons", to="billing.subscription"
            ),
        ),
        migrations.AddField(
            model_name="priceoverride",
            name="created_by",
            field=models.ForeignKey(
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="priceoverride",
            name="customer",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="price_overrides", to="accounts.customer"
            ),
        ),
        migrations.AddField(
            model_name="priceoverride",
            name="price",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="overrides", to="billing.price"
            ),
        ),
        migrations.AddField(
            model_name="priceoverride",
            name="row",
            field=models.ForeignKey(
                blank=True,
                help_text="None: default.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="overrides",
                to="billing.matchrow",
            ),
        ),
        migrations.AddField(
            model_name="unitcost",
            name="meter",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="unit_costs", to="billing.meter"
            ),
        ),
        migrations.AddConstraint(
            model_name="couponredemption",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ends_at", None)),
                fields=("subscription", "coupon"),
                name="coupon_once_per_subscription",
            ),
        ),
        migrations.AddConstraint(
            model_name="couponredemption",
            constraint=models.CheckConstraint(
                condition=models.Q(("ends_at", None), ("ends_at__gte", models.F("starts_at")), _connector="OR"),
                name="redemption_ends_later",
            ),
        ),
        migrations.AddIndex(
            model_name="priceoverride",
            index=models.Index(fields=["customer", "price"], name="override_of_customer"),
        ),
        migrations.AddConstraint(
            model_name="priceoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(("ends_at", None), ("ends_at__gte", models.F("starts_at")), _connector="OR"),
                name="override_ends_later",
            ),
        ),
        migrations.AddConstraint(
            model_name="priceoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("package_size__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("package_size__gt", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="override_package_size_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="priceoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("unit_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("unit_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="override_unit_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="priceoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("package_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("package_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="override_package_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="priceoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("rate__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("rate__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="override_rate_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="priceoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("fixed_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("fixed_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="override_fixed_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="priceoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("included__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("included__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="override_included_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="priceoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("minimum_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("minimum_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="override_minimum_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="priceoverride",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("maximum_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("maximum_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="override_maximum_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="unitcost",
            constraint=models.CheckConstraint(
                condition=models.Q(("currency__regex", "^[A-Z]{3}$")), name="unit_cost_currency_is_iso"
            ),
        ),
        migrations.AddConstraint(
            model_name="unitcost",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("unit_amount__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("unit_amount__gte", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="unit_cost_unit_amount_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="unitcost",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("per__lt", models.Value(Decimal("1E+26"), output_field=models.DecimalField())),
                    ("per__gt", models.Value(Decimal("0"), output_field=models.DecimalField())),
                ),
                name="unit_cost_per_positive",
            ),
        ),
        migrations.RunSQL(
            f"ALTER TABLE billing_priceoverride ADD CONSTRAINT override_tiers_are_amounts CHECK ({TIERS})",
            "ALTER TABLE billing_priceoverride DROP CONSTRAINT override_tiers_are_amounts",
        ),
        migrations.RunSQL(FREEZE, migrations.RunSQL.noop),
        migrations.RunSQL(AGREED, "DROP FUNCTION refuse_change_of_what_was_agreed() CASCADE"),
        # Whoever made it may be deleted from the users: the column is set to null then.
        freeze("billing_priceoverride", "ends_at", "created_by_id"),
        freeze("billing_coupon", "name", "redeem_by", "max_redemptions"),
        freeze("billing_couponredemption", "ends_at"),
        append_only("billing_unitcost"),
    ]
