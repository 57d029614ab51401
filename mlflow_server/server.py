"""The command line that starts MLflow's tracking server on loopback.

Without `proxied`, experiments point at the artifact directory itself: programs on this machine read and write files
directly, with and without the server. With it, artifacts travel through the server, for clients without that disk.
"""

from __future__ import annotations

import sys

from infra.settings import Settings


def backend(settings: Settings) -> str:
    """The database behind the server: `tracking_uri`, or the local one where that names a server."""
    uri = settings.tracking_uri
    return f"sqlite:///{settings.home / 'mlflow.db'}" if uri.startswith(("http://", "https://")) else uri


def command(settings: Settings, *, proxied: bool = False) -> list[str]:
    """argv of `mlflow server`: one worker, bound to 127.0.0.1. Run it with the `quiet_environment` of the settings."""
    root = settings.artifact_root
    options = {
        "--backend-store-uri": backend(settings),
        "--artifacts-destination": root,
        "--default-artifact-root": "mlflow-artifacts:/" if proxied else root,
        "--host": "127.0.0.1",
        "--port": str(settings.mlflow_port),
        "--workers": "1",
    }
    return [sys.executable, "-m", "mlflow", "server", "--serve-artifacts", *(w for o in options.items() for w in o)]
