"""Margin per model needs the model: values that unit costs name count by themselves, as those of prices do."""

from hashlib import sha256

from django.db import migrations, models


def name_values(apps, schema_editor):
    UnitCost, NamedValue = apps.get_model("billing", "UnitCost"), apps.get_model("billing", "NamedValue")
    alias = schema_editor.connection.alias
    named = {
        (cost.meter, dimension, value)
        for cost in UnitCost.objects.using(alias).select_related("meter")
        for dimension, wanted in cost.where.items()
        if dimension in cost.meter.dimensions
        for value in (wanted if isinstance(wanted, list) else [wanted])
    }
    NamedValue.objects.using(alias).bulk_create(
        NamedValue(
            named_by=f"unit costs of {meter.key}",
            meter=meter,
            dimension=dimension,
            value=value,
            digest=None if value is None else sha256(value.encode()).hexdigest()[:32],
        )
        for meter, dimension, value in sorted(named, key=str)
    )


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0036_count_how_often_holds_are_freed"),
    ]

    operations = [
        migrations.AlterField(
            model_name="namedvalue",
            name="named_by",
            field=models.CharField(help_text="Which plan version, unit costs or budget.", max_length=255),
        ),
        migrations.RunPython(name_values, migrations.RunPython.noop),
    ]
