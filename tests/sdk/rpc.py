"""Plain gRPC calls, for requests that the SDK does not send itself. The descriptors are the SDK's."""

import importlib
import os
import pkgutil
from contextlib import contextmanager

import cwsandbox._proto
import grpc
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

# All modules, including those that a newer SDK adds.
MODULES = [importlib.import_module(f"cwsandbox._proto.{m.name}") for m in pkgutil.iter_modules(cwsandbox._proto.__path__) if m.name.endswith("_pb2")]
SERVICES = [service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values()]
METHODS = {f"{service.name}/{method.name}": method for service in SERVICES for method in service.methods}

NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def bearer(key):
    return [("authorization", f"Bearer {key}")]


def request(name, **fields):
    """A request message of the method with this name."""
    return GetMessageClass(METHODS[name].input_type)(**fields)


@contextmanager
def calling(name, message, credentials=None, to=None, timeout=60):
    """Starts a call and yields its response, or an iterator of its responses."""
    method = METHODS[name]
    to = to or os.environ["CWSANDBOX_BASE_URL"].removeprefix("http://")
    credentials = bearer(os.environ["CWSANDBOX_API_KEY"]) if credentials is None else credentials
    kinds = ("stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming))
    with grpc.insecure_channel(to, options=NO_LIMIT) as channel:
        begin = getattr(channel, "_".join(kinds))(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        yield begin(iter([message]) if method.client_streaming else message, metadata=credentials, timeout=timeout)


def call(name, message, credentials=None, to=None, timeout=60):
    """Returns the response of a call, or the list of its responses."""
    with calling(name, message, credentials, to, timeout) as answer:
        return list(answer) if METHODS[name].server_streaming else answer


class Refusal:
    """The error of a call: code, text, and the details that the SDK reads."""

    def __init__(self, error):
        self.code, self.text = error.code(), error.details()
        raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        self.info, self.retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        for detail in status_pb2.Status.FromString(raw).details:
            detail.Unpack(self.info) or detail.Unpack(self.retry)
        self.reason, self.pause = self.info.reason, self.retry.retry_delay.ToTimedelta().total_seconds()

    def __repr__(self):
        return f"{self.code.name} {self.reason}: {self.text}"


def refused(name, message, credentials=None, to=None, timeout=60):
    """Returns the error of a call that must fail."""
    try:
        answer = call(name, message, credentials, to, timeout)
    except grpc.RpcError as error:
        return Refusal(error)
    raise AssertionError(f"{name} succeeded: {answer}")
