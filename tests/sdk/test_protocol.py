"""Our .proto files are written by hand. They must match the SDK's descriptors."""

import pathlib

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_tools import protoc
from rpc import MODULES

PROTO = pathlib.Path(__file__).parents[2] / "proto"


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    out = tmp_path_factory.mktemp("proto") / "descriptors"
    files = [str(f.relative_to(PROTO)) for f in sorted(PROTO.glob("coreweave/sandbox/v1/*.proto"))]
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    assert protoc.main(["", f"-I{PROTO}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out}", *files]) == 0
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    return pool


def fields(message):
    def of(field):
        other = field.message_type or field.enum_type
        one = field.containing_oneof.name if field.containing_oneof else None
        return (field.name, field.number, field.type, field.label, field.has_presence, one, other.full_name if other else None)

    return sorted(of(f) for f in message.fields)


def values(enum):
    return [(v.name, v.number) for v in enum.values]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.split(".")[-1])
def test_names_numbers_and_types(ours, module):
    theirs = module.DESCRIPTOR
    assert theirs.message_types_by_name or theirs.enum_types_by_name or theirs.services_by_name
    for message in theirs.message_types_by_name.values():
        same = ours.FindMessageTypeByName(message.full_name)
        assert fields(same) == fields(message), message.full_name
        assert {e.name: values(e) for e in same.enum_types} == {e.name: values(e) for e in message.enum_types}
    for enum in theirs.enum_types_by_name.values():
        assert values(ours.FindEnumTypeByName(enum.full_name)) == values(enum)
    for service in theirs.services_by_name.values():
        methods = [
            sorted((m.name, m.input_type.full_name, m.output_type.full_name, m.client_streaming, m.server_streaming) for m in s.methods)
            for s in (ours.FindServiceByName(service.full_name), service)
        ]
        assert methods[0] == methods[1]
