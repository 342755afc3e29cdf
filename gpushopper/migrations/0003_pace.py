from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("gpushopper", "0002_alarms"),
    ]

    operations = [
        migrations.CreateModel(
            name="Pace",
            fields=[
                ("key", models.CharField(max_length=300, primary_key=True, serialize=False)),
                ("free_at", models.DateTimeField()),
            ],
        ),
    ]
