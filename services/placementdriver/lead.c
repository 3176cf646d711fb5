#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "placementdriver/driver.h"

// Taking over and giving up the lead. Who leads holds what is in nobody's log: which workers were
// heard of, who watches the map. Its first command makes the map's version larger than whatever a
// former leader has shown.

enum { INCARNATION_SIZE = 16 };

// Workers that were there before count as healthy until they had time to be heard of.
static void took_over(enum status status, uint64_t index, struct span result, void *context)
{
    (void)index;
    (void)result;
    struct driver *driver = context;
    if (status != STATUS_OK)
        return; // the lead is gone again
    uint64_t until_ns = clock_monotonic_ns() + PRESENCE_GRACE_SECONDS * NS_PER_SECOND;
    pthread_mutex_lock(&driver->lock);
    atomic_store(&driver->leads, true);
    for (uint32_t i = 0; i < driver->state.worker_count; i++)
        (void)presence_expect_worker(&driver->presence, driver->state.workers[i]->id, until_ns);
    map_has_changed(driver);
    pthread_cond_broadcast(&driver->lead_changed);
    pthread_mutex_unlock(&driver->lock);
}

static void take_over(struct driver *driver)
{
    uint8_t random[INCARNATION_SIZE];
    char incarnation[2 * INCARNATION_SIZE + 1];
    struct buf bytes;
    rng_secure(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++)
        (void)snprintf(incarnation + 2 * i, 3, "%02x", random[i]);
    const struct command command = {
        .kind = COMMAND_LEAD,
        .incarnation = str_from_cstr(incarnation),
    };
    buf_init(&bytes, SIZE_MAX);
    command_encode(&command, &bytes);
    (void)replica_propose(driver->replica, buf_span(&bytes), took_over, driver);
    buf_deinit(&bytes);
}

static void give_up(struct driver *driver)
{
    pthread_mutex_lock(&driver->lock);
    atomic_store(&driver->leads, false);
    driver->schedule.wish_count = 0;
    presence_deinit(&driver->presence);
    presence_init(&driver->presence);
    map_has_changed(driver); // the watches end
    pthread_mutex_unlock(&driver->lock);
}

void driver_lead_changed(bool is_leading, void *context)
{
    struct driver *driver = context;
    log_info(is_leading ? "this placement driver leads" : "this placement driver does not lead");
    if (is_leading)
        loop_post(net_loop(driver->net, 0), &driver->lead_task);
    else
        give_up(driver);
}

// The replica's handle is there only when replica_open has returned.
void driver_take_over(struct task *task)
{
    struct driver *driver =
        (struct driver *)(void *)((char *)task - offsetof(struct driver, lead_task));
    pthread_mutex_lock(&driver->lock);
    bool is_open = driver->replica != NULL;
    pthread_mutex_unlock(&driver->lock);
    if (!is_open)
        loop_post(net_loop(driver->net, 0), task);
    else
        take_over(driver);
}
