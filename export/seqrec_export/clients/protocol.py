"""The part of Triton's gRPC protocol that inference needs, as tools of other languages take it.

It is taken from the descriptors of the installed tritonclient, so it is the server's own protocol
(KServe's Open Inference Protocol, version 2, with Triton's additions to its messages).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

CALLS = (  # none of them streams
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
)
FILE = "inference.proto"
_JAVA_PACKAGE = "seqrec.inference"
_GO_PACKAGE = "seqrec/inference"
_Field = descriptor_pb2.FieldDescriptorProto


def descriptor_set() -> Any:
    """A FileDescriptorSet of one file: the service with `CALLS`, and every message in them."""
    source = service_pb2.DESCRIPTOR
    service = source.services_by_name["GRPCInferenceService"]
    calls = [service.methods_by_name[name] for name in CALLS]
    needed: dict[str, Any] = {}
    for call in calls:
        for message in (call.input_type, call.output_type):
            needed.update((found.name, found) for found in _reached(message, set()))
    file = descriptor_pb2.FileDescriptorProto(name=FILE, package=source.package, syntax="proto3")
    for name in source.message_types_by_name:
        if name in needed:
            needed[name].CopyToProto(file.message_type.add())
    made = file.service.add(name=service.name)
    for call in calls:
        copy = made.method.add()
        call.CopyToProto(copy)
        copy.ClearField("options")
    file.options.java_package = _JAVA_PACKAGE
    file.options.java_multiple_files = True
    file.options.go_package = _GO_PACKAGE
    return descriptor_pb2.FileDescriptorSet(file=[file])


def _reached(message: Any, seen: set[str]) -> Iterator[Any]:
    """The top-level messages in a message's fields, itself included."""
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    if message.containing_type is None:
        yield message
    for field in message.fields:
        if field.message_type is not None:
            yield from _reached(field.message_type, seen)


def proto_text() -> str:
    """`descriptor_set` in protobuf's language, for tools that take no descriptors."""
    (file,) = descriptor_set().file
    lines = [
        "// The part of Triton's gRPC protocol that inference needs.",
        'syntax = "proto3";',
        f"package {file.package};",
        f'option java_package = "{file.options.java_package}";',
        "option java_multiple_files = true;",
        f'option go_package = "{file.options.go_package}";',
    ]
    for service in file.service:
        lines += ["", f"service {service.name} {{"]
        for call in service.method:
            lines.append(f"  rpc {call.name}({call.input_type}) returns ({call.output_type});")
        lines.append("}")
    for message in file.message_type:
        lines += ["", *_message(message, f".{file.package}.{message.name}")]
    return "\n".join(lines) + "\n"


def _message(message: Any, path: str) -> Iterator[str]:
    yield f"message {message.name} {{"
    maps = {f"{path}.{m.name}": m for m in message.nested_type if m.options.map_entry}
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from (f"  {line}" for line in _message(nested, f"{path}.{nested.name}"))
    for i, union in enumerate(message.oneof_decl):
        yield f"  oneof {union.name} {{"
        members = [f for f in message.field if f.HasField("oneof_index") and f.oneof_index == i]
        yield from (f"    {_type(field)} {field.name} = {field.number};" for field in members)
        yield "  }"
    for field in message.field:
        if field.HasField("oneof_index"):
            continue
        if field.type_name in maps:
            key, value = maps[field.type_name].field
            kind = f"map<{_type(key)}, {_type(value)}>"
        else:
            repeated = field.label == _Field.LABEL_REPEATED
            kind = f"{'repeated ' if repeated else ''}{_type(field)}"
        yield f"  {kind} {field.name} = {field.number};"
    yield "}"


def _type(field: Any) -> str:
    kind: str = field.type_name or _Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    return kind
