"""The peer of server.py: grpcio's server (its C++ core), which answers a constant search response.

Prints its port, serves until it is ended.
"""
import concurrent.futures
import sys
import time

import grpc

ANSWER = bytes.fromhex(sys.argv[1])


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: ANSWER)


server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=2), handlers=[Handler()])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
time.sleep(3600)
