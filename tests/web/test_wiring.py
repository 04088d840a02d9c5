"""What holds the parts of the console together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import v2vweb.asgi
from django.conf import settings
from conversions.tasks import run_conversion
from inventory.tasks import check_upload
for task in (run_conversion, check_upload):
    assert task.app.conf.broker_url == settings.CELERY_BROKER_URL, task.app.conf.broker_url
"""


def test_the_web_process_sends_tasks_to_the_broker_of_the_settings(repository: Path) -> None:
    """In a process of its own: the tests themselves configure Celery for all of them."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        cwd=repository,
        env=os.environ | {"SECRET_KEY": "of-the-tests"},
        check=True,
    )


@pytest.mark.parametrize(
    "part", [["-c", "import v2vweb.asgi"], ["-m", "celery", "-A", "v2vweb", "worker"]]
)
def test_no_part_starts_with_the_key_that_stands_in_the_source(
    repository: Path, tmp_path: Path, part: list[str]
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SECRET_KEY"}
    done = subprocess.run(
        [sys.executable, *part],
        cwd=repository,
        env=environment | {"V2VWEB_VAR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"{tmp_path}/env is missing, or this user cannot read it" in done.stderr


def test_what_signs_sessions_is_for_its_owner_alone(repository: Path, tmp_path: Path) -> None:
    """Of script/setup only the lines about it: the rest installs packages."""
    text = (repository / "script/setup").read_text()
    begin, end = text.index("if ! grep -qs '^SECRET_KEY='"), text.index('if [ -z "${DATABASE_URL-}')
    file = tmp_path / "env"
    file.write_text("DATABASE_URL=postgres://v2v:secret@db/v2v\n")
    file.chmod(0o644)
    program = f"set -eu; var={tmp_path} python={sys.executable}\n{text[begin:end]}"
    subprocess.run(["bash", "-c", program], check=True)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().count("SECRET_KEY=") == 1
