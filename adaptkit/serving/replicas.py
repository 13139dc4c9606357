"""Copies of the application on Ray Serve, each with a session of its own, behind one address."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from adaptkit.errors import AdaptkitError, ModelError, RunError, first_line, install_command
from adaptkit.inference import Session
from adaptkit.serving.settings import ServerSettings

NAME = "adaptkit"
_PATIENCE = {"RAY_raylet_start_wait_time_s": "180", "RAY_agent_register_timeout_ms": "180000"}
"""How long Ray waits for its own processes, which 30 seconds are too short for on a machine under load."""
_MARGIN = 16


@contextmanager
def replicas(
    open_session: Callable[[], Session],
    settings: ServerSettings,
    *,
    num_replicas: int,
    num_places: int,
    host: str,
    port: int,
    on_gpu: bool,
) -> Iterator[str]:
    """Serve while the context lasts; at its end, what runs is finished first.

    A replica that dies is replaced; what it was answering is lost, and nothing else.

    Args:
        open_session: Called in the process of each replica.
        settings: Of each replica.
        num_replicas: How many.
        num_places: Requests that a replica takes at a time, running and waiting.
        host: Where Ray's proxy listens.
        port: Likewise.
        on_gpu: Whether each replica has a GPU of its own.

    Yields:
        The address.

    Raises:
        ModelError: Ray is not installed.
        RunError: Ray cannot start, has too few GPUs, or a replica failed to start.
    """
    serve, ray = _import_ray()
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        with _starting():
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            _check_gpus(ray, num_replicas if on_gpu else 0)
            serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "ERROR"})
            deployment = serve.deployment(
                num_replicas=num_replicas,
                max_ongoing_requests=num_places + _MARGIN,  # so that the application itself refuses what is too much
                max_queued_requests=num_places,
                graceful_shutdown_timeout_s=settings.request_timeout_s,
                max_constructor_retry_count=1,
                ray_actor_options={"num_cpus": 0, "num_gpus": int(on_gpu)},
                logging_config={"log_level": "ERROR", "enable_access_log": False},
            )(serve.ingress(_builder(open_session, settings))())
            serve.run(deployment.bind(), name=NAME, route_prefix="/")
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
        serve.delete(NAME)  # waits for what runs
    finally:
        if ray.is_initialized():
            serve.shutdown()
            ray.shutdown()


@contextmanager
def _starting() -> Iterator[None]:
    try:
        yield
    except AdaptkitError:
        raise
    except Exception as error:  # Ray raises many types, down to Exception itself
        raise RunError(f"Ray Serve did not start: {first_line(error)}.") from error


def _builder(open_session: Callable[[], Session], settings: ServerSettings) -> Callable[[], Any]:
    def build() -> Any:
        from adaptkit.serving.app import create_app

        return create_app(open_session(), settings)

    return build


def _import_ray() -> tuple[Any, Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send statistics to its makers
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise ModelError(f"replicas need Ray Serve: {install_command('ray')}, in an environment of its own.") from error
    return serve, ray


def _check_gpus(ray: Any, num_wanted: int) -> None:
    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if num_gpus < num_wanted:
        raise RunError(
            f"{num_wanted} replicas need a GPU each, and Ray has {num_gpus}. Ask for fewer, or --device cpu."
        )
