import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import SettingsError
from infra.settings import Settings, quiet_environment, stay_on_this_machine


def test_defaults_lie_in_the_working_directory():
    settings = Settings.load({})
    assert settings.home == Path.cwd() / ".flywheel"
    assert settings.store == settings.home / "store"
    assert settings.tracking_uri == f"sqlite:///{settings.home}/mlflow.db"
    assert settings.artifact_root == str(settings.home / "mlartifacts")
    assert settings.prefect_home == settings.home / "prefect"
    assert settings.prefect_api_url is None
    assert settings.color


def test_environment_decides():
    settings = Settings.load(
        {
            "FLYWHEEL_HOME": "elsewhere",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
            "PREFECT_API_URL": "http://127.0.0.1:4200/api",
            "FLYWHEEL_SERVE_PORT": "9000",
            "NO_COLOR": "1",
        }
    )
    assert settings.home == Path.cwd() / "elsewhere"
    assert (settings.serve_port, settings.color) == (9000, False)
    assert settings.tracking_uri == "http://127.0.0.1:5000"
    assert settings.prefect_api_url == "http://127.0.0.1:4200/api"


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1", "FLYWHEEL_HOME": "/tmp/a b", "PREFECT_HOME": "/tmp/p"}])
def test_a_child_process_reads_the_same_settings(environment):
    settings = Settings.load(environment)
    assert Settings.load(settings.environment()) == settings


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "8080.0"])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(SettingsError, match="FLYWHEEL_SERVE_PORT"):
        Settings.load({"FLYWHEEL_SERVE_PORT": port})


def test_the_hub_is_offline_unless_the_recipe_names_it():
    assert quiet_environment()["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in quiet_environment(hub=True)


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(os, "environ", {"MLFLOW_LOGGING_LEVEL": "DEBUG"})
    stay_on_this_machine()
    assert os.environ["MLFLOW_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_importing_settings_is_light():
    probe = "import sys, infra.settings; sys.exit(bool({'mlflow', 'prefect', 'pydantic'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
