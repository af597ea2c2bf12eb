#!/usr/bin/env python3
"""Asks an embark sidecar for the vectors of texts, and prints one JSON line a text.

    pip install grpcio grpcio-tools
    python embed.py --address 127.0.0.1:8081 --model quickstart "first text" "second text"

The client code is generated at start from the .proto, so that this file is all there is to read. An application would
generate it once: python -m grpc_tools.protoc -I PROTO --python_out=OUT --grpc_python_out=OUT embark/v1/embedding.proto
"""

import argparse
import importlib
import importlib.resources
import json
import sys
import tempfile
from pathlib import Path

import grpc
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[3] / "sidecar" / "proto"


def generate(proto):
    """The modules of messages and of services, made from the .proto."""
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as out:
        source = Path(proto) / "embark/v1/embedding.proto"
        includes = [f"-I{proto}", f"-I{well_known}"]
        outputs = [f"--python_out={out}", f"--grpc_python_out={out}"]
        if protoc.main(["protoc", *includes, *outputs, str(source)]) != 0:
            sys.exit(f"{source} could not be compiled")
        sys.path.insert(0, out)
        return (
            importlib.import_module("embark.v1.embedding_pb2"),
            importlib.import_module("embark.v1.embedding_pb2_grpc"),
        )


def arguments():
    parser = argparse.ArgumentParser(description="Prints the vectors of texts as JSON lines.")
    parser.add_argument("--address", default="127.0.0.1:8081", metavar="HOST:PORT")
    parser.add_argument("--model", default="", help="may be left out where only one is served")
    parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS")
    parser.add_argument("--proto", default=PROTO, metavar="FOLDER", help="where embark/v1/embedding.proto is")
    parser.add_argument("texts", nargs="+", metavar="TEXT")
    return parser.parse_args()


def main():
    options = arguments()
    messages, services = generate(options.proto)
    request = messages.EmbedRequest(
        model=options.model,
        items=[messages.Item(text=text) for text in options.texts],
    )
    with grpc.insecure_channel(options.address) as channel:
        stub = services.EmbeddingServiceStub(channel)
        try:
            response = stub.Embed(request, timeout=options.timeout)
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")
    failed = False
    for text, result in zip(options.texts, response.results, strict=True):
        line = {"text": text, "source": messages.Source.Name(result.source)}
        if result.HasField("error"):
            line["error"] = {"reason": result.error.reason, "message": result.error.message}
            failed = True
        else:
            line |= {"age_ms": result.age_ms, "dimensions": len(result.vector), "vector": list(result.vector)}
        print(json.dumps(line, ensure_ascii=False))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
