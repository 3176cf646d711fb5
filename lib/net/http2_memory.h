#pragma once

#include <nghttp2/nghttp2.h>

// The memory of the HTTP/2 sessions of one loop. nghttp2 asks for about ten small pieces for each
// call and gives them back soon; here they wait for the next call instead of going through the
// process' heap, whose locks the loops would share. Bounded: what is more than a busy loop needs
// goes back to the heap. One thread, which is the loop's.

struct http2_memory;

struct http2_memory *http2_memory_create(void);
void http2_memory_destroy(struct http2_memory *memory); // after its sessions; may be NULL
// Handed to nghttp2 when a session is made; it copies the struct.
nghttp2_mem *http2_memory_functions(struct http2_memory *memory);
