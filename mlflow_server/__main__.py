"""`python -m mlflow_server`: MLflow's tracking server and UI for the local home, in the foreground."""

from __future__ import annotations

import os

from infra.settings import Settings, stay_on_this_machine
from infra.tracking import prepare_database
from mlflow_server.server import backend, command


def main() -> None:
    """Prepare the database and become `mlflow server`."""
    stay_on_this_machine()
    settings = Settings.load()
    prepare_database(backend(settings))
    argv = command(settings)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
