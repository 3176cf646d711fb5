# A module is a folder. The end of a file's name says what it is:
#   x.c          part of the module's static library
#   x_test.c     its own test program, run by ctest
#   x_fuzz.c     its own fuzz target (preset fuzz); x_corpus/ holds its seeds
#   x_bench.c    its own benchmark program
# module(<name> <folder> <modules that it may include…> LIBS <outside libraries…>)
function(module name folder)
  cmake_parse_arguments(PARSE_ARGV 2 module "" "" "LIBS")
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.c)
  set(library ${sources})
  list(FILTER library EXCLUDE REGEX "_(test|fuzz|bench)\\.c$")

  add_library(${name} STATIC ${library} ${CMAKE_SOURCE_DIR}/cmake/empty.c)
  cmake_path(GET folder PARENT_PATH root)
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR}/${root})
  foreach(dependency IN LISTS module_UNPARSED_ARGUMENTS)
    if(NOT TARGET ${dependency})
      message(FATAL_ERROR "module ${name}: ${dependency} is not listed above it in modules.cmake")
    endif()
  endforeach()
  list(TRANSFORM module_LIBS PREPEND dep_)
  target_link_libraries(${name} PUBLIC ${module_UNPARSED_ARGUMENTS} ${module_LIBS} project_options
                                       Threads::Threads m)
  if(name STREQUAL "api")
    target_link_libraries(api PUBLIC api_messages)
  endif()

  foreach(file IN LISTS sources)
    cmake_path(GET file STEM stem)
    if(stem MATCHES "_test$" AND BUILD_TESTING)
      add_executable(${name}_${stem} ${file})
      target_link_libraries(${name}_${stem} PRIVATE ${name} testing)
      add_test(NAME ${name}/${stem} COMMAND ${name}_${stem})
    elseif(stem MATCHES "_fuzz$" AND PROJECT_FUZZ)
      add_executable(${name}_${stem} ${file})
      target_link_libraries(${name}_${stem} PRIVATE ${name})
      target_link_options(${name}_${stem} PRIVATE -fsanitize=fuzzer)
      string(REGEX REPLACE "_fuzz$" "_corpus" corpus ${stem})
      set(corpus_folder)
      if(IS_DIRECTORY ${CMAKE_SOURCE_DIR}/${folder}/${corpus})
        # A scratch folder in front: what the fuzzer finds does not land in the source tree.
        file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/corpus/${name}_${stem})
        set(corpus_folder ${CMAKE_BINARY_DIR}/corpus/${name}_${stem}
                          ${CMAKE_SOURCE_DIR}/${folder}/${corpus})
      endif()
      add_test(NAME fuzz/${name}/${stem}
               COMMAND ${name}_${stem} -runs=20000 -seed=1 -max_total_time=60 ${corpus_folder})
    elseif(stem MATCHES "_bench$")
      add_executable(${name}_${stem} ${file})
      target_link_libraries(${name}_${stem} PRIVATE ${name})
    endif()
  endforeach()
endfunction()

# A program may bear the name of the service that it starts: its target is <name>_program.
function(program name main)
  add_executable(${name}_program ${main})
  set_target_properties(${name}_program PROPERTIES OUTPUT_NAME ${name}
                        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  target_link_libraries(${name}_program PRIVATE ${ARGN})
endfunction()
