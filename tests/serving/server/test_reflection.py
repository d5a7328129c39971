"""A client that knows no message of ours learns them from the server, as grpcurl does, and calls with them."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from .processes import ServerProcess

SERVICE = "inference.GRPCInferenceService"


def test_messages_can_be_made_of_what_is_told(oip: ServerProcess) -> None:
    opened: Any = grpc.insecure_channel(oip.grpc)  # The stubs want serializers of one kind.
    with opened as channel:
        told = ProtoReflectionDescriptorDatabase(channel)
        services = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", SERVICE}
        assert set(told.get_services()) == services
        method = DescriptorPool(told).FindServiceByName(SERVICE).methods_by_name["ModelMetadata"]
        asked, answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        path = f"/{SERVICE}/ModelMetadata"
        call = channel.unary_unary(path, asked.SerializeToString, answered.FromString)
        assert list(call(asked(name="fashion")).inputs[0].shape) == [-1, 28, 28, 1]


def test_the_health_service_says_serving(oip: ServerProcess) -> None:
    with grpc.insecure_channel(oip.grpc) as channel:
        for service in ("", SERVICE):
            asked = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(asked)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
