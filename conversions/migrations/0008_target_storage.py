from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('conversions', '0007_kept_work'),
    ]

    operations = [
        migrations.RenameField(
            model_name='outputtarget',
            old_name='pool',
            new_name='storage',
        ),
    ]
