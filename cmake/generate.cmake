# C code for api/*.proto (protobuf-c), and the descriptors of all of them as an array, which the
# reflection service hands out.
set(generated ${CMAKE_BINARY_DIR}/generated)
file(GLOB protos CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/api/*.proto)
file(MAKE_DIRECTORY ${generated}/api ${generated}/google/protobuf)
pkg_get_variable(protobuf_prefix protobuf prefix)
if(NOT protobuf_prefix)
  set(protobuf_prefix /usr)
endif()

set(generated_sources)
foreach(proto IN LISTS protos)
  cmake_path(GET proto STEM stem)
  set(out ${generated}/api/${stem}.pb-c.c)
  add_custom_command(OUTPUT ${out} ${generated}/api/${stem}.pb-c.h
    COMMAND ${PROTOC} -I ${CMAKE_SOURCE_DIR}/api -I ${protobuf_prefix}/include
            --c_out=${generated}/api ${proto}
    DEPENDS ${protos} VERBATIM)
  list(APPEND generated_sources ${out})
endforeach()

set(out ${generated}/api/google/protobuf/struct.pb-c.c)
add_custom_command(OUTPUT ${out} ${generated}/api/google/protobuf/struct.pb-c.h
  COMMAND ${PROTOC} -I ${protobuf_prefix}/include --c_out=${generated}/api
          google/protobuf/struct.proto VERBATIM)
list(APPEND generated_sources ${out})

add_custom_command(OUTPUT ${generated}/api/descriptors.c
  COMMAND ${PROTOC} -I ${CMAKE_SOURCE_DIR}/api -I ${protobuf_prefix}/include --include_imports
          --descriptor_set_out=${generated}/api/descriptors.bin ${protos}
  COMMAND ${CMAKE_COMMAND} -DIN=${generated}/api/descriptors.bin -DNAME=api_descriptors
          -DOUT=${generated}/api/descriptors.c -P ${CMAKE_SOURCE_DIR}/cmake/embed.cmake
  DEPENDS ${protos} ${CMAKE_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
list(APPEND generated_sources ${generated}/api/descriptors.c)

add_library(api_messages STATIC ${generated_sources})
target_include_directories(api_messages SYSTEM PUBLIC ${generated} ${generated}/api)
target_link_libraries(api_messages PUBLIC dep_protobuf_c)
target_compile_options(api_messages PRIVATE -O2 -w -fno-omit-frame-pointer)
