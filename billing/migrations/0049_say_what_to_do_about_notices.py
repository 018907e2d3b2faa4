"""Some payment notices wait for an operator, who is told what to do."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0048_sum_up_quarter_hours_when_they_end")]

    operations = [
        migrations.AddField(
            model_name="paymentnotice",
            name="todo",
            field=models.CharField(
                blank=True,
                default="",
                help_text="What an operator is to do, because nothing follows by itself.",
                max_length=300,
            ),
        ),
        migrations.AddIndex(
            model_name="paymentnotice",
            index=models.Index(condition=~models.Q(todo=""), fields=["id"], name="notice_to_do"),
        ),
    ]
