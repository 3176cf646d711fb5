# Every outside library, once. Each becomes a target dep_<name> that one module links to; versions
# with known loss of data or unpatched holes are refused here and not worked around.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# dependency(<name> <pkg-config module> <least version>)
function(dependency name module version)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${module}>=${version})
  add_library(dep_${name} INTERFACE)
  target_link_libraries(dep_${name} INTERFACE PkgConfig::${name})
endfunction()

dependency(uv         libuv         1.44)
dependency(nghttp2    libnghttp2    1.52)
dependency(openssl    openssl       3.0)
dependency(zlib       zlib          1.2)
dependency(protobuf_c libprotobuf-c 1.4)
dependency(jansson    jansson       2.14)
dependency(rocksdb    rocksdb       7.8)
dependency(sodium     libsodium     1.0.18)
dependency(jwt        libjwt        1.10)
dependency(sqlite     sqlite3       3.40)

# llhttp: Debian 12 ships its C sources with node-llhttp, Debian 13 a library.
pkg_check_modules(llhttp QUIET IMPORTED_TARGET libllhttp)
add_library(dep_llhttp INTERFACE)
if(llhttp_FOUND)
  target_link_libraries(dep_llhttp INTERFACE PkgConfig::llhttp)
elseif(EXISTS /usr/share/llhttp/llhttp.c)
  file(GLOB llhttp_sources /usr/share/llhttp/*.c)
  add_library(llhttp_from_source STATIC ${llhttp_sources})
  target_include_directories(llhttp_from_source SYSTEM PUBLIC /usr/share/include/llhttp)
  target_compile_options(llhttp_from_source PRIVATE -O2 -w)
  target_compile_definitions(llhttp_from_source PRIVATE LLHTTP_STRICT_MODE=1)
  target_link_libraries(dep_llhttp INTERFACE llhttp_from_source)
else()
  message(FATAL_ERROR "llhttp is missing: run tools/setup.sh")
endif()

# libraft 0.15 of plain Debian 12 loses committed entries (docs/decisions/0003-raft-library.md), and
# the ownership rules of its messages change after 0.22.1: exactly this one.
pkg_check_modules(raft QUIET IMPORTED_TARGET raft)
if(NOT raft_FOUND)
  message(FATAL_ERROR "libraft 0.22.1 is missing: run tools/setup.sh")
elseif(NOT raft_VERSION VERSION_EQUAL 0.22.1)
  message(FATAL_ERROR "libraft ${raft_VERSION} is installed; only 0.22.1 is accepted: run tools/setup.sh")
endif()
add_library(dep_raft INTERFACE)
target_link_libraries(dep_raft INTERFACE PkgConfig::raft)

find_program(PROTOC protoc REQUIRED)
find_program(PROTOC_C protoc-gen-c REQUIRED)
