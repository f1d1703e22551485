"""The protocol files are our own text: they must say what the SDK's say."""

import os

import grpc
import pytest
from cwsandbox._proto import discovery_pb2, runtime_class_pb2, sandbox_data_plane_pb2, sandbox_pb2, sandbox_template_pb2, settings_pb2, volume_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

MODULES = [discovery_pb2, runtime_class_pb2, sandbox_data_plane_pb2, sandbox_pb2, sandbox_template_pb2, settings_pb2, volume_pb2]


@pytest.fixture(scope="module")
def served():
    with grpc.insecure_channel(os.environ["CWSANDBOX_BASE_URL"].removeprefix("http://")) as channel:
        yield DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


def fields(message):
    def of(field):
        other = field.message_type or field.enum_type
        one = field.containing_oneof.name if field.containing_oneof else None
        return (field.name, field.number, field.type, field.is_repeated, field.has_presence, one, other.full_name if other else None)

    return sorted(of(f) for f in message.fields)



@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.split(".")[-1])
def test_names_numbers_and_types(served, module):
    theirs = module.DESCRIPTOR
    for message in theirs.message_types_by_name.values():
        ours = served.FindMessageTypeByName(message.full_name)
        assert fields(ours) == fields(message), message.full_name
        assert {e.name: [(v.name, v.number) for v in e.values] for e in ours.enum_types} == {
            e.name: [(v.name, v.number) for v in e.values] for e in message.enum_types
        }
    for enum in theirs.enum_types_by_name.values():
        ours = served.FindEnumTypeByName(enum.full_name)
        assert [(v.name, v.number) for v in ours.values] == [(v.name, v.number) for v in enum.values]
    for service in theirs.services_by_name.values():
        ours = served.FindServiceByName(service.full_name)
        methods = lambda s: sorted((m.name, m.input_type.full_name, m.output_type.full_name, m.client_streaming, m.server_streaming) for m in s.methods)  # noqa: E731
        assert methods(ours) == methods(service)
