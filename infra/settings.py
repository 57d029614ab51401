"""Settings: what the environment says, read once into one frozen object. Nothing else reads `os.environ`.

| variable                     | default                     | meaning                                            |
|------------------------------|-----------------------------|----------------------------------------------------|
| FLYWHEEL_HOME                | .flywheel                   | everything that a run leaves behind                |
| MLFLOW_TRACKING_URI          | sqlite:///HOME/mlflow.db    | tracking server or database                        |
| MLFLOW_DEFAULT_ARTIFACT_ROOT | HOME/mlartifacts            | where models and pictures go without a server      |
| PREFECT_HOME                 | HOME/prefect                | Prefect's database and profile                     |
| PREFECT_API_URL              |                             | a running Prefect server; empty starts one per run |
| FLYWHEEL_SERVE_PORT          | 8080                        | model server                                       |
| FLYWHEEL_MLFLOW_PORT         | 5000                        | tracking server of `flywheel up`                   |
| FLYWHEEL_PREFECT_PORT        | 4200                        | Prefect server of `flywheel up`                    |
| FLYWHEEL_ALLOWED_HOSTS       |                             | host:port,... that sources may reach inside a net  |
| FLYWHEEL_GPU_WORKER          |                             | 1 or 0: `up` starts a gpu worker; empty: with GPUs |
| FLYWHEEL_LEASE_SECONDS       | 60                          | silence after which a holder of a GPU is dead      |
| FLYWHEEL_SIGNING_KEY         |                             | private key (PEM) that signs registered versions   |
| FLYWHEEL_VERIFY_KEY          |                             | public key (PEM) that versions must be signed for  |
| CUDA_VISIBLE_DEVICES         |                             | the GPUs that may be leased; unset: all            |
| NO_COLOR                     |                             | any text: no colours                               |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.errors import SettingsError

# What keeps libraries from calling home, looking things up, advertising on the terminal, or burning idle cores.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",  # else the UI's server fetches a list of models
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # LLM judges that nobody here runs, in three further processes
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait slow training tenfold on a shared machine
    "TQDM_DISABLE": "1",  # bars of libraries; the progress that matters is told by tasks/show.py
}
_OFFLINE = {"HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Settings:
    """Where things are. Paths are absolute."""

    home: Path
    tracking_uri: str
    artifact_root: str
    """Directory or URI of artifacts of experiments that are made without a tracking server."""
    prefect_home: Path
    prefect_api_url: str | None
    serve_port: int = 8080
    mlflow_port: int = 5000
    prefect_port: int = 4200
    color: bool = True
    allowed_hosts: frozenset[str] = frozenset()
    """`host:port` of servers at addresses that are not public, which recipes may fetch from all the same."""
    gpu_worker: bool | None = None
    """Whether `flywheel up` starts a worker of the pool `gpu`; None: where there is a GPU."""
    lease_seconds: int = 60
    """A lease that was not renewed for so long is free again, and a training run that was silent is started anew."""
    visible_devices: str | None = None
    """CUDA_VISIBLE_DEVICES as it was found: the GPUs that may be leased; None for all."""
    signing_key: Path | None = None
    """Private key of an elliptic curve, PEM: every version that is registered is signed with it."""
    verify_key: Path | None = None
    """Public key, PEM: a version whose signature is not by its private key is neither promoted nor fetched."""

    @property
    def store(self) -> Path:
        """Artifacts of steps, by fingerprint."""
        return self.home / "store"

    @property
    def leases(self) -> Path:
        """Who holds which GPU, and the beats of training runs in a work pool."""
        return self.home / "leases"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment. Raises SettingsError for a value that cannot be used."""
        env = os.environ if environ is None else environ
        home = Path(env.get("FLYWHEEL_HOME") or ".flywheel").expanduser().absolute()
        return cls(
            home=home,
            tracking_uri=env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}",
            artifact_root=env.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or str(home / "mlartifacts"),
            prefect_home=Path(env.get("PREFECT_HOME") or home / "prefect").expanduser().absolute(),
            prefect_api_url=env.get("PREFECT_API_URL") or None,
            serve_port=_port(env, "FLYWHEEL_SERVE_PORT", 8080),
            mlflow_port=_port(env, "FLYWHEEL_MLFLOW_PORT", 5000),
            prefect_port=_port(env, "FLYWHEEL_PREFECT_PORT", 4200),
            color=not env.get("NO_COLOR"),
            allowed_hosts=frozenset(h.strip() for h in env.get("FLYWHEEL_ALLOWED_HOSTS", "").split(",") if h.strip()),
            gpu_worker=_switch(env, "FLYWHEEL_GPU_WORKER"),
            lease_seconds=_seconds(env, "FLYWHEEL_LEASE_SECONDS", 60),
            visible_devices=env.get("CUDA_VISIBLE_DEVICES"),
            signing_key=_file(env, "FLYWHEEL_SIGNING_KEY"),
            verify_key=_file(env, "FLYWHEEL_VERIFY_KEY"),
        )

    def environment(self) -> dict[str, str]:
        """These settings as variables for a child process, which then reads the same."""
        values = {
            "FLYWHEEL_HOME": str(self.home),
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": self.artifact_root,
            "PREFECT_HOME": str(self.prefect_home),
            "PREFECT_API_URL": self.prefect_api_url or "",
            "FLYWHEEL_SERVE_PORT": str(self.serve_port),
            "FLYWHEEL_MLFLOW_PORT": str(self.mlflow_port),
            "FLYWHEEL_PREFECT_PORT": str(self.prefect_port),
            "NO_COLOR": "" if self.color else "1",
            "FLYWHEEL_ALLOWED_HOSTS": ",".join(sorted(self.allowed_hosts)),
            "FLYWHEEL_GPU_WORKER": "" if self.gpu_worker is None else str(int(self.gpu_worker)),
            "FLYWHEEL_LEASE_SECONDS": str(self.lease_seconds),
            "FLYWHEEL_SIGNING_KEY": str(self.signing_key or ""),
            "FLYWHEEL_VERIFY_KEY": str(self.verify_key or ""),
        }
        visible = {} if self.visible_devices is None else {"CUDA_VISIBLE_DEVICES": self.visible_devices}
        return {name: value for name, value in values.items() if value} | visible


def variables() -> Mapping[str, str]:
    """The environment, for the `${NAME}`s of a recipe: secrets go to whoever connects, and nowhere else."""
    return dict(os.environ)


def quiet_environment(*, hub: bool = False) -> dict[str, str]:
    """Variables that keep everything on this machine. `hub`: the recipe names a hub id to look up."""
    return {**_QUIET, **({} if hub else _OFFLINE)}


def stay_on_this_machine(*, hub: bool = False) -> None:
    """Set `quiet_environment` for this process and its children; what the user has set stays.

    Call it before prefect, mlflow, huggingface_hub or onnxruntime is imported: some read it once.
    """
    for name, value in quiet_environment(hub=hub).items():
        os.environ.setdefault(name, value)


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise SettingsError(
        f"environment variable {name}", found=text, expected="a port from 1 to 65535", remedy=f"unset {name}"
    )


def _file(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]).expanduser().absolute() if env.get(name) else None


def _switch(env: Mapping[str, str], name: str) -> bool | None:
    text = env.get(name, "")
    if text in ("", "0", "1"):
        return bool(int(text)) if text else None
    raise SettingsError(f"environment variable {name}", found=text, expected="1 or 0", remedy=f"unset {name}")


def _seconds(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if text.isdecimal() and int(text) >= 2:
        return int(text)
    raise SettingsError(
        f"environment variable {name}", found=text, expected="seconds, 2 at least", remedy=f"unset {name}"
    )
