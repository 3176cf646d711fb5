#include "index/epoch.h"

#include <stddef.h>

#include "base/assert.h"
#include "base/mem.h"

// Hot path: epoch_enter and epoch_leave.
//
// All operations that matter are sequentially consistent, so they have one order. A reader enters
// (1: load now, 2: mark its place) and then loads what leads to the data (3). The writer unlinks
// (4), takes a ticket t by counting now up (5), and later looks at all places (6). If (6) does not
// see the reader's mark, it comes before (2) in that order, hence (4) comes before (3): the reader
// cannot find what was unlinked. If it sees a mark above t, (1) came behind (5), with the same
// result. A mark of t or less keeps the ticket open.

static _Thread_local uint32_t last_place; // where this thread found room the last time

void epoch_init(struct epoch *epoch)
{
    ASSERT((uintptr_t)epoch % EPOCH_CACHE_LINE == 0);
    for (uint32_t i = 0; i < EPOCH_READERS_PER_PAGE; i++) {
        atomic_init(&epoch->first.readers[i].entered_at, 0);
        epoch->first.readers[i].kept = NULL;
    }
    atomic_init(&epoch->first.next, NULL);
    epoch->first.memory = NULL;
    atomic_init(&epoch->now, 1);
}

void epoch_deinit(struct epoch *epoch, void (*destroy)(void *kept))
{
    struct epoch_page *page = &epoch->first;
    while (page != NULL) {
        struct epoch_page *next = atomic_load(&page->next);
        for (uint32_t i = 0; i < EPOCH_READERS_PER_PAGE; i++) {
            if (page->readers[i].kept != NULL)
                destroy(page->readers[i].kept);
        }
        if (page != &epoch->first)
            mem_free(page->memory);
        page = next;
    }
}

static struct epoch_page *create_page(void)
{
    char *memory = mem_alloc(sizeof(struct epoch_page) + EPOCH_CACHE_LINE);
    size_t over = (uintptr_t)memory % EPOCH_CACHE_LINE;
    struct epoch_page *page = (void *)(memory + (over > 0 ? EPOCH_CACHE_LINE - over : 0));
    page->memory = memory;
    return page;
}

// The page behind this one; made when there is none. Whoever loses the race takes the winner's.
static struct epoch_page *next_page(struct epoch_page *page)
{
    struct epoch_page *next = atomic_load(&page->next);
    if (next != NULL)
        return next;
    struct epoch_page *fresh = create_page();
    if (atomic_compare_exchange_strong(&page->next, &next, fresh))
        return fresh;
    mem_free(fresh->memory);
    return next;
}

struct epoch_reader *epoch_enter(struct epoch *epoch)
{
    uint32_t place = last_place;
    for (struct epoch_page *page = &epoch->first;; page = next_page(page)) {
        for (uint32_t i = 0; i < EPOCH_READERS_PER_PAGE; i++) {
            struct epoch_reader *reader = &page->readers[(place + i) % EPOCH_READERS_PER_PAGE];
            uint64_t nobody = 0;
            if (atomic_load_explicit(&reader->entered_at, memory_order_relaxed) == 0 &&
                atomic_compare_exchange_strong(&reader->entered_at, &nobody,
                                               atomic_load(&epoch->now))) {
                last_place = (place + i) % EPOCH_READERS_PER_PAGE;
                return reader;
            }
        }
    }
}

void epoch_leave(struct epoch_reader *reader)
{
    atomic_store_explicit(&reader->entered_at, 0, memory_order_release);
}

uint64_t epoch_ticket(struct epoch *epoch)
{
    return atomic_fetch_add(&epoch->now, 1);
}

uint64_t epoch_passed(struct epoch *epoch)
{
    uint64_t passed = atomic_load(&epoch->now);
    for (struct epoch_page *page = &epoch->first; page != NULL; page = atomic_load(&page->next)) {
        for (uint32_t i = 0; i < EPOCH_READERS_PER_PAGE; i++) {
            uint64_t entered_at = atomic_load(&page->readers[i].entered_at);
            if (entered_at != 0 && entered_at < passed)
                passed = entered_at;
        }
    }
    return passed;
}
