"""Meters of greatest, latest and different values: what decides among quantities, and the members that are counted."""

import django.db.models.deletion
from django.db import migrations, models

AGGREGATIONS = [
    ("sum", "Sum of a value"),
    ("count", "Number of events"),
    ("max", "Greatest value"),
    ("latest", "Value of the latest event"),
    ("unique", "Number of different values"),
]
WITHOUT_VALUE = models.Q(("aggregation", "count"))


def to(model: str, **options) -> models.ForeignKey:
    on_delete = options.pop("on_delete", django.db.models.deletion.CASCADE)
    return models.ForeignKey(
        db_index=False, on_delete=on_delete, related_name=options.pop("related_name", "+"), to=model
    )


def members(name: str, owner: tuple[str, models.Field], *when: tuple[str, models.Field]) -> migrations.CreateModel:
    key = (owner[0], "meter", *(field for field, _ in when), "dimension_set", "member")
    return migrations.CreateModel(
        name=name,
        fields=[
            ("member", models.UUIDField()),
            ("events", models.BigIntegerField()),
            *when,
            owner,
            ("meter", to("billing.meter", on_delete=django.db.models.deletion.PROTECT)),
            ("dimension_set", to("billing.dimensionset")),
            (
                "pk",
                models.CompositePrimaryKey(*key, blank=True, editable=False, primary_key=True, serialize=False),
            ),
        ],
        options={"abstract": False},
    )


def rank(model: str) -> migrations.AddField:
    return migrations.AddField(model, "rank", models.TextField(db_collation="C", null=True))


def quantity(model: str) -> migrations.AlterField:
    said = "0 for a unique meter, whose members are counted instead."
    return migrations.AlterField(
        model, "quantity", models.DecimalField(decimal_places=12, help_text=said, max_digits=38)
    )


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_keep_only_finished_answers"),
        ("billing", "0015_name_refused_items"),
    ]

    operations = [
        migrations.RemoveConstraint(model_name="meter", name="meter_aggregation_is_known"),
        migrations.RemoveConstraint(model_name="meter", name="meter_value_fits_aggregation"),
        migrations.AlterField("meter", "aggregation", models.CharField(choices=AGGREGATIONS, max_length=16)),
        migrations.AlterField(
            "meter",
            "value",
            models.CharField(blank=True, help_text="Dotted path of the property; none for a count.", max_length=255),
        ),
        migrations.AddConstraint(
            "meter",
            models.CheckConstraint(
                condition=models.Q(("aggregation__in", [name for name, _ in AGGREGATIONS])),
                name="meter_aggregation_is_known",
            ),
        ),
        migrations.AddConstraint(
            "meter",
            models.CheckConstraint(
                condition=models.Q(
                    models.Q(aggregation="count", value=""), ~WITHOUT_VALUE & ~models.Q(value=""), _connector="OR"
                ),
                name="meter_value_fits_aggregation",
            ),
        ),
        rank("usagedelta"),
        migrations.AddField(
            "usagedelta",
            "member",
            models.UUIDField(help_text="Of a unique meter: digest of the value.", null=True),
        ),
        rank("usagebucket"),
        rank("usageday"),
        rank("periodtotal"),
        quantity("usagebucket"),
        quantity("usageday"),
        members("BucketMember", ("customer", to("accounts.customer")), ("starts_at", models.DateTimeField())),
        members("DayMember", ("customer", to("accounts.customer")), ("day", models.DateField())),
        members("PeriodMember", ("period", to("billing.trackedperiod", related_name="members"))),
    ]
