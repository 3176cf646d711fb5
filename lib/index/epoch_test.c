#include "index/epoch.h"

#include <pthread.h>
#include <stdbool.h>

#include "base/mem.h"
#include "testing/test.h"

enum { THREADS = 4, ROUNDS = 20000, CELLS = 64 };

static struct epoch epoch;

TEST(a_ticket_passes_when_its_readers_have_left)
{
    epoch_init(&epoch);
    uint64_t ticket = epoch_ticket(&epoch);
    CHECK(ticket < epoch_passed(&epoch));
    struct epoch_reader *first = epoch_enter(&epoch);
    ticket = epoch_ticket(&epoch);
    CHECK(ticket >= epoch_passed(&epoch));
    // Who comes later does not hold it back.
    struct epoch_reader *second = epoch_enter(&epoch);
    CHECK(first != second);
    epoch_leave(first);
    CHECK(ticket < epoch_passed(&epoch));
    epoch_leave(second);
    epoch_deinit(&epoch, NULL);
}

TEST(there_is_room_for_any_number_of_readers)
{
    enum { READERS = EPOCH_READERS_PER_PAGE * 3 + 1 };
    struct epoch_reader *readers[READERS];
    epoch_init(&epoch);
    for (int i = 0; i < READERS; i++)
        readers[i] = epoch_enter(&epoch);
    uint64_t ticket = epoch_ticket(&epoch);
    for (int i = 0; i < READERS; i++) {
        CHECK(ticket >= epoch_passed(&epoch));
        epoch_leave(readers[i]);
    }
    CHECK(ticket < epoch_passed(&epoch));
    epoch_deinit(&epoch, NULL);
}

// The writer replaces a cell and overwrites the old one only when its ticket has passed; a reader
// must never see one that was overwritten.
static uint64_t cells[CELLS];
static uint64_t *_Atomic current;
static atomic_bool is_over;
static _Atomic uint64_t wrong_count;
static _Atomic uint64_t read_count;

static void *read_cells(void *argument)
{
    (void)argument;
    while (!atomic_load(&is_over)) {
        struct epoch_reader *reader = epoch_enter(&epoch);
        const uint64_t *cell = atomic_load(&current);
        for (int i = 0; i < 8; i++) {
            if (*cell == 0)
                atomic_fetch_add(&wrong_count, 1);
        }
        epoch_leave(reader);
        atomic_fetch_add(&read_count, 1);
    }
    return NULL;
}

TEST(readers_never_see_what_is_used_again)
{
    uint64_t tickets[CELLS] = {0};
    epoch_init(&epoch);
    for (int i = 0; i < CELLS; i++)
        cells[i] = 0;
    cells[0] = 1;
    atomic_store(&current, &cells[0]);
    atomic_store(&is_over, false);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, read_cells, NULL) == 0);
    int place = 0;
    for (uint64_t round = 0; round < ROUNDS || atomic_load(&read_count) < ROUNDS; round++) {
        int next = (place + 1) % CELLS;
        while (tickets[next] >= epoch_passed(&epoch))
            ;
        cells[next] = 0;
        cells[next] = round + 1;
        atomic_store(&current, &cells[next]);
        tickets[place] = epoch_ticket(&epoch);
        place = next;
    }
    atomic_store(&is_over, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ_U64(atomic_load(&wrong_count), 0);
    epoch_deinit(&epoch, NULL);
}

TEST_MAIN()
