# The architecture. Modules are listed bottom to top; a module may include only
# the modules it names, and can name only modules above its own line.
# tools/tidy.py holds every #include to this list, and every outside library to one module.

#      name             folder                    may include                               outside libraries
module(base             lib/base)
module(testing          lib/testing               base)                                     # linked into tests only
module(net              lib/net                   base                                      LIBS uv nghttp2 llhttp openssl zlib)
module(api              lib/api                   base net                                  LIBS protobuf_c jansson)
module(vector           lib/vector                base)
module(index            lib/index                 base vector)
module(store            lib/store                 base vector index                         LIBS rocksdb)
module(replica          lib/replica               base net api                              LIBS raft)
module(identity         lib/identity              base net                                  LIBS sodium jwt sqlite)
module(cluster          lib/cluster               base net api)
module(server           lib/server                base net api)

module(placementdriver  services/placementdriver  base net api replica cluster server)
module(worker           services/worker           base net api vector index store cluster server)
module(authsvc          services/authsvc          base net api identity cluster server)
module(apigateway       services/apigateway       base net api identity cluster server      LIBS sqlite)
module(reranker         services/reranker         base net api cluster server)
module(vectron          cmd/vectron               base net api index replica server placementdriver worker authsvc apigateway reranker)

#       binary           main file               module
program(placementdriver  cmd/placementdriver.c   placementdriver)
program(worker           cmd/worker.c            worker)
program(authsvc          cmd/authsvc.c           authsvc)
program(apigateway       cmd/apigateway.c        apigateway)
program(reranker         cmd/reranker.c          reranker)
program(vectron          cmd/vectron.c           vectron)
