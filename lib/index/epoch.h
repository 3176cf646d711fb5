#pragma once

#include <stdatomic.h>
#include <stdint.h>

// When may memory that others read without a lock be used again? Readers mark where they are while
// they read; the one writer unlinks something, takes a ticket, and may reuse it as soon as everyone
// who was reading then has left. Readers never wait and take no lock: entering is one
// compare-and-swap on a cache line that is usually the thread's own.
//
// What leads to the protected things (a pointer, a sequence number) must be stored by the writer
// before it takes the ticket, and loaded by readers after they entered, both with
// memory_order_seq_cst. Readers: any thread, any number, also nested. Writer: one thread at a time.

enum { EPOCH_CACHE_LINE = 64, EPOCH_READERS_PER_PAGE = 16 };

struct epoch_reader {
    _Alignas(EPOCH_CACHE_LINE) _Atomic uint64_t entered_at; // 0: nobody
    // Whoever is here may leave something for the next at this place: memory to work in.
    void *kept;
};

struct epoch_page {
    struct epoch_reader readers[EPOCH_READERS_PER_PAGE];
    struct epoch_page *_Atomic next; // more, when there were ever more readers at once
    void *memory;                    // what to free; NULL: embedded
};

struct epoch {
    struct epoch_page first;
    _Alignas(EPOCH_CACHE_LINE) _Atomic uint64_t now;
};

// The memory must be aligned to EPOCH_CACHE_LINE.
void epoch_init(struct epoch *epoch);
// Nobody reads any more; destroy is called for what readers kept and may be NULL if none did.
void epoch_deinit(struct epoch *epoch, void (*destroy)(void *kept));

struct epoch_reader *epoch_enter(struct epoch *epoch);
void epoch_leave(struct epoch_reader *reader);

// Writer: a ticket for what was unlinked before.
uint64_t epoch_ticket(struct epoch *epoch);
// Writer: tickets smaller than this are over: nobody can see what they were taken for.
uint64_t epoch_passed(struct epoch *epoch);
