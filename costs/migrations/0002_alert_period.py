from typing import Any

from django.db import migrations, models
from django.db.models import OuterRef, Subquery


def take_over_from_the_budget(apps: Any, schema_editor: Any) -> None:
    Alert, Budget = apps.get_model("costs", "Alert"), apps.get_model("costs", "Budget")
    of_the_budget = Budget.objects.filter(pk=OuterRef("budget")).values("period")[:1]
    Alert.objects.update(period=Subquery(of_the_budget))


class Migration(migrations.Migration):

    dependencies = [
        ('costs', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='alert',
            name='period',
            field=models.CharField(choices=[('daily', 'daily'), ('monthly', 'monthly'), ('total', 'total')], default='', max_length=10),
            preserve_default=False,
        ),
        migrations.RunPython(take_over_from_the_budget, migrations.RunPython.noop),
        migrations.RemoveConstraint(
            model_name='alert',
            name='one_alert_per_crossing',
        ),
        migrations.AddConstraint(
            model_name='alert',
            constraint=models.UniqueConstraint(fields=('budget', 'period', 'period_start', 'threshold', 'limit'), name='one_alert_per_crossing'),
        ),
    ]
