option(PROJECT_FUZZ "Build the libFuzzer targets (clang only)" OFF)
option(PROJECT_WERROR "Turn warnings into errors" OFF)
option(PROJECT_COVERAGE "Instrument for gcov" OFF)
set(PROJECT_SANITIZE "" CACHE STRING "Value for -fsanitize, e.g. address,undefined")

add_library(project_options INTERFACE)
target_compile_definitions(project_options INTERFACE _GNU_SOURCE VECTRON_VERSION="${PROJECT_VERSION}")
target_compile_options(project_options INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wvla -Wformat=2
  -Wstrict-prototypes -Wmissing-prototypes -Wnull-dereference -Wwrite-strings
  -fno-omit-frame-pointer -fvisibility=hidden)
# Initialisers that protobuf-c generates cast const away; gcc forgives macros of system headers, clang
# does not.
if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
  target_compile_options(project_options INTERFACE -Wcast-qual)
endif()
if(PROJECT_WERROR)
  target_compile_options(project_options INTERFACE -Werror)
endif()
if(PROJECT_SANITIZE)
  target_compile_options(project_options INTERFACE -fsanitize=${PROJECT_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(project_options INTERFACE -fsanitize=${PROJECT_SANITIZE})
endif()
if(PROJECT_FUZZ)
  target_compile_options(project_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(PROJECT_COVERAGE)
  target_compile_options(project_options INTERFACE --coverage)
  target_link_options(project_options INTERFACE --coverage)
endif()
