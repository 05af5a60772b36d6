"""Every private part of Flower that we lean on, by name and shape: an upgrade that moves one fails here, by name.

That they also work together is test_relay_e2e.py's to show.
"""

from __future__ import annotations

import importlib
import inspect
from importlib.metadata import version

import pytest

import participants.supernode_child as supernode_child
from coordinator import gate
from coordinator.superlink import Settings, arguments

ATTRIBUTES = {
    "flwr.app.message": ["make_message", "remove_content_from_message"],
    "flwr.app.metadata": ["Metadata"],
    "flwr.common.constant": ["SUPERLINK_NODE_ID", "ErrorCode", "SubStatus"],
    "flwr.common.serde": ["message_from_proto", "message_to_proto", "user_config_from_proto", "user_config_to_proto"],
    "flwr.serverapp": ["Grid"],
    "flwr.supercore.constant": ["TaskType"],
    "flwr.supercore.control": ["ControlHttpClient"],
    "flwr.supercore.error": ["ApiErrorCode", "FlowerError"],
    "flwr.supercore.primitives.asymmetric": ["public_key_to_bytes"],
    "flwr.supercore.run": ["Run", "RunNotRunningException"],
    "flwr.supercore.runtime_version_compatibility": ["RuntimeVersionMetadata"],
    "flwr.superlink.main": ["create_app"],
    "flwr.superlink.cli.flower_superlink": ["SuperLinkLifespan", "_parse_superlink_lifespan_config"],
    "flwr.supernode.cli.flower_supernode": ["flower_supernode"],
    # replaced in the SuperNode's process
    "flwr.supernode.main": ["create_app"],
    "flwr.supernode.start_client_internal": ["_pull_and_store_message", "pull_objects", "time"],
    "flwr.supernode.fleet_http_connection": ["FleetHttpClient"],
}

SIGNATURES = {
    ("flwr.app.metadata", "Metadata"): [
        *("run_id", "message_id", "src_node_id", "dst_node_id", "reply_to_message_id", "group_id", "created_at"),
        *("ttl", "message_type"),
    ],
    ("flwr.supercore.inflatable.inflatable_utils", "push_objects"): [
        "objects",
        "push_object_fn",
        "object_ids_to_push",
    ],
    ("flwr.supercore.inflatable.inflatable_utils", "inflate_object_from_contents"): ["object_id", "object_contents"],
    ("flwr.supercore.inflatable.inflatable_utils", "pull_objects"): ["initial_backoff", "backoff_cap"],
    ("flwr.supercore.inflatable.inflatable_object", "get_object_tree"): ["obj"],
    ("flwr.supercore.inflatable.inflatable_object", "get_all_nested_objects"): ["obj"],
    ("flwr.supercore.inflatable.inflatable_object", "get_object_body"): ["object_content", "cls"],
    ("flwr.supercore.inflatable.inflatable_object", "get_object_head_values_from_object_content"): ["object_content"],
    ("flwr.supercore.inflatable.inflatable_object", "iterate_object_tree"): ["tree"],
    ("flwr.supercore.interceptors", "RuntimeTokenHttpInterceptor"): ["token"],
    ("flwr.supercore.interceptors", "SuperExecAuthHttpInterceptor"): ["master_secret", "protected_methods"],
    ("flwr.supercore.protobuf.client", "ProtobufClient"): ["base_url", "interceptors", "verify", "retry_invoker"],
    ("flwr.superlink.main", "create_app"): ["config", "superlink_lifespan_class"],
}

RUNTIME_CALLS = [
    *("AcquireTask", "PullTaskInput", "PushTaskOutput", "SendTaskHeartbeat", "GetNodes"),
    *("PullMessages", "PushMessages", "PullObject", "PushObject", "ConfirmMessageReceived"),
]
CONTROL_CALLS = ["RegisterNode", "UnregisterNode", "ListNodes", "StartRun", "StopRun", "ListRuns"]


def test_flower_is_the_version_that_was_tested() -> None:
    assert version("flwr").startswith("1.41.")


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in ATTRIBUTES.items() for name in names]
)
def test_the_name_exists(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("module", "name"), SIGNATURES)
def test_the_signature_has_our_arguments(module: str, name: str) -> None:
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert [p for p in SIGNATURES[module, name] if p not in parameters] == []


def test_the_clients_have_our_calls_and_an_http_client_to_replace() -> None:
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.runtime import RuntimeHttpClient

    for kind, calls in ((RuntimeHttpClient, RUNTIME_CALLS), (ControlHttpClient, CONTROL_CALLS)):
        client = kind("http://nowhere")
        assert all(callable(getattr(client, call)) for call in calls)
        assert type(client._client).__name__ == "Client"
        client.close()


def test_every_public_path_is_one_that_flower_serves() -> None:
    from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES

    assert {("POST", path) for path in gate.PUBLIC} <= set(PROTOBUF_REQUEST_TYPES)
    assert not any("control" in path for path in gate.PUBLIC)
    assert ("POST", gate.START_RUN) in PROTOBUF_REQUEST_TYPES


def test_the_layers_that_we_shorten_are_there() -> None:
    from flwr.superlink.main import _get_middleware

    names = {layer.cls.__name__ for layer in _get_middleware()}
    assert names >= gate.CONTROL_LAYERS | gate.IDLE_LAYERS
    layers = _get_middleware()
    gate.shorten(layers)
    assert [layer.cls.__name__ for layer in layers].count("OnlyControl") == len(gate.CONTROL_LAYERS)
    assert {"ProtobufTranslationMiddleware", "NodeAuthMiddleware"} <= {layer.cls.__name__ for layer in layers}


def test_the_superlink_takes_our_command_line() -> None:
    from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink

    files = {"authority": "ca", "certificate": "crt", "key": "key", "secret": "secret"}
    settings = Settings(state="/state", host="127.0.0.1", port=1234, **files)
    parsed = _parse_args_run_superlink().parse_args(arguments(settings)[1:])
    assert parsed.enable_supernode_auth is True
    assert parsed.insecure is False
    assert parsed.isolation == "process"
    assert parsed.database == "/state/state.db"
    assert parsed.superexec_auth_secret_file == "secret"
    assert Settings.from_json(settings.to_json()) == settings


def test_the_supernodes_loop_still_waits_in_the_way_that_we_shorten() -> None:
    import flwr.supernode.start_client_internal as loop

    assert "time.sleep(3)" in inspect.getsource(loop.start_client_internal)
    assert "time.sleep(0.5)" in inspect.getsource(loop._push_messages)
    assert "_pull_and_store_message(" in inspect.getsource(loop.start_client_internal)


def test_a_name_that_is_gone_is_not_replaced_in_silence() -> None:
    with pytest.raises(AttributeError, match="not the one that was tested"):
        supernode_child.replace(supernode_child, "no_such_name", None)


def test_help_does_not_wait_for_flower() -> None:
    """Only the programs import Flower."""
    import subprocess
    import sys

    code = "import sys, superswarm.cli; sys.exit('flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
