#include "worker/hosting.h"

#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "index/epoch.h"

enum {
    RETRY_MS = 100,        // when the pool's queue is full
    FAILURE_MS_MIN = 1000, // before a shard that could not be opened is tried again
    FAILURE_MS_MAX = 60000,
    OPENINGS_MAX = 2, // at once: reading a large shard takes a thread of the pool for long
};

struct table {
    uint32_t count;
    uint64_t ticket; // when it was replaced
    struct table *next;
    struct hosted *shards[]; // by id, each referenced
};

// A shard that is being opened, or could not be.
struct opening {
    struct job job;
    struct hosting *hosting;
    struct opening *next;
    struct shard_options options; // its texts belong to it
    uint64_t epoch;
    uint64_t round;
    bool is_running;
    uint64_t retry_at_ns; // it failed, and is not tried before
    uint64_t delay_ms;
    struct shard *shard;
    enum status status;
    struct error error;
};

struct sweep {
    struct job job;
    struct cluster_map *map;
    uint32_t removed_count;
    enum status status;
    struct error error;
    bool is_running;
    bool is_wanted; // again, with what changed meanwhile
};

struct offer {
    struct task task;
    struct hosting *hosting;
    struct cluster_map *map;
};

struct hosting {
    struct epoch epoch; // first: it wants a cache line of its own; guards the table
    struct table *_Atomic table;
    struct hosting_options options;
    char *path;
    void *memory; // what to free

    // The first loop's.
    struct cluster_map *map; // referenced; NULL: none came
    uint64_t worker_id;
    uint64_t round;
    struct table *old_tables;
    struct opening *openings;
    uint32_t running_count; // of the openings
    atomic_bool is_ending;  // anybody's
    struct hosted *closing; // waiting for the pool
    struct sweep sweep;
    struct timer retry;
    uint64_t retry_at_ns;

    pthread_mutex_t store_mutex; // held while the store is opened; never taken on a loop
    struct store *store;
    pthread_mutex_t mutex; // guards what follows
    pthread_cond_t idle;
    uint32_t busy_count; // jobs and tasks under way, shards that are not closed
};

static struct loop *first_loop(const struct hosting *hosting)
{
    return net_loop(hosting->options.net, 0);
}

static void reconcile(struct hosting *hosting);

// --- What must have ended before the end

static void begin(struct hosting *hosting)
{
    pthread_mutex_lock(&hosting->mutex);
    hosting->busy_count++;
    pthread_mutex_unlock(&hosting->mutex);
}

static void end(struct hosting *hosting)
{
    pthread_mutex_lock(&hosting->mutex);
    if (--hosting->busy_count == 0)
        pthread_cond_broadcast(&hosting->idle);
    pthread_mutex_unlock(&hosting->mutex);
}

static void retry_later(struct hosting *hosting, uint64_t delay_ms)
{
    uint64_t at = loop_now_ns(first_loop(hosting)) + delay_ms * NS_PER_MS;
    if (timer_is_running(&hosting->retry) && hosting->retry_at_ns <= at)
        return;
    hosting->retry_at_ns = at;
    timer_start_at(&hosting->retry, at);
}

// The store is opened when the first shard is, so that a worker without any stays small.
static enum status open_store(struct hosting *hosting, struct error *error,
                              struct store **out_store)
{
    enum status status = STATUS_OK;
    pthread_mutex_lock(&hosting->store_mutex);
    if (hosting->store == NULL)
        status = store_open(str_from_cstr(hosting->path), error, &hosting->store);
    if (status == STATUS_OK)
        store_set_memory_max(hosting->store, hosting->options.memory_max);
    *out_store = hosting->store;
    pthread_mutex_unlock(&hosting->store_mutex);
    return status;
}

bool hosting_store_stats(struct hosting *hosting, struct store_stats *out_stats)
{
    // Not while it is opened, which takes long: then there is nothing to say yet.
    if (pthread_mutex_trylock(&hosting->store_mutex) != 0)
        return false;
    bool is_open = hosting->store != NULL;
    if (is_open)
        store_stats(hosting->store, out_stats);
    pthread_mutex_unlock(&hosting->store_mutex);
    return is_open;
}

// --- The table

static struct table *create_table(uint32_t count)
{
    struct table *table = mem_alloc(sizeof(*table) + count * sizeof(table->shards[0]));
    table->count = count;
    return table;
}

static void free_old_tables(struct hosting *hosting)
{
    uint64_t passed = epoch_passed(&hosting->epoch);
    struct table **place = &hosting->old_tables;
    while (*place != NULL) {
        struct table *table = *place;
        if (table->ticket >= passed) {
            place = &table->next;
            continue;
        }
        *place = table->next;
        // Now nobody can take a reference from it any more.
        for (uint32_t i = 0; i < table->count; i++)
            hosted_unref(table->shards[i]);
        mem_free(table);
    }
    if (hosting->old_tables != NULL)
        retry_later(hosting, RETRY_MS);
}

// Every table has references of its own.
static void replace_table(struct hosting *hosting, struct table *table)
{
    struct table *old = atomic_load(&hosting->table);
    for (uint32_t i = 0; i < table->count; i++)
        hosted_ref(table->shards[i]);
    atomic_store(&hosting->table, table);
    old->ticket = epoch_ticket(&hosting->epoch);
    old->next = hosting->old_tables;
    hosting->old_tables = old;
    free_old_tables(hosting);
    if (hosting->options.changed != NULL)
        hosting->options.changed(hosting->options.context);
}

static struct hosted *find_in(const struct table *table, uint32_t shard_id)
{
    uint32_t low = 0;
    uint32_t high = table->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (table->shards[middle]->shard_id < shard_id)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_there = low < table->count && table->shards[low]->shard_id == shard_id;
    return is_there ? table->shards[low] : NULL;
}

struct hosted *hosting_find(struct hosting *hosting, uint32_t shard_id)
{
    struct epoch_reader *reader = epoch_enter(&hosting->epoch);
    struct hosted *hosted = find_in(atomic_load(&hosting->table), shard_id);
    if (hosted != NULL)
        hosted_ref(hosted);
    epoch_leave(reader);
    return hosted;
}

struct hosted **hosting_list(struct hosting *hosting, uint32_t *out_count)
{
    struct epoch_reader *reader = epoch_enter(&hosting->epoch);
    const struct table *table = atomic_load(&hosting->table);
    struct hosted **list = mem_alloc((table->count + 1) * sizeof(struct hosted *));
    for (uint32_t i = 0; i < table->count; i++) {
        list[i] = table->shards[i];
        hosted_ref(list[i]);
    }
    *out_count = table->count;
    epoch_leave(reader);
    return list;
}

void hosting_list_free(struct hosted **list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        hosted_unref(list[i]);
    mem_free(list);
}

// --- Closing

static void close_shard(struct job *job)
{
    struct hosted *hosted = (void *)((char *)job - offsetof(struct hosted, job));
    // At the end of the process; else the shard went elsewhere.
    if (atomic_load(&hosted->hosting->is_ending))
        shard_save_image(hosted->shard);
    shard_close(hosted->shard);
    hosted->shard = NULL;
}

static void start_sweep(struct hosting *hosting);

static bool is_of_map(const struct hosting *hosting, const struct opening *opening)
{
    return str_equal(opening->options.incarnation, hosting->map->incarnation);
}

static struct opening *find_opening(struct hosting *hosting, uint32_t shard_id)
{
    struct opening *opening = hosting->openings;
    while (opening != NULL &&
           (opening->options.shard_id != shard_id || !is_of_map(hosting, opening)))
        opening = opening->next;
    return opening;
}

static void shard_closed(struct job *job)
{
    struct hosted *hosted = (void *)((char *)job - offsetof(struct hosted, job));
    struct hosting *hosting = hosted->hosting;
    log_info("shard closed", LOG_U64("shard", hosted->shard_id),
             LOG_CSTR("collection", hosted->collection));
    // It may be wanted back already.
    struct opening *opening = find_opening(hosting, hosted->shard_id);
    if (opening != NULL)
        opening->retry_at_ns = 0;
    mem_free(hosted->collection);
    mem_free(hosted);
    reconcile(hosting);
    start_sweep(hosting);
    end(hosting);
}

static void start_closing(struct hosted *hosted)
{
    struct hosting *hosting = hosted->hosting;
    hosted->job =
        (struct job){.loop = first_loop(hosting), .run = close_shard, .done = shard_closed};
    if (pool_submit(net_pool(hosting->options.net), &hosted->job) == STATUS_OK)
        return;
    hosted->next = hosting->closing;
    hosting->closing = hosted;
    retry_later(hosting, RETRY_MS);
}

static void last_reference_gone(struct task *task)
{
    start_closing((void *)((char *)task - offsetof(struct hosted, task)));
}

void hosted_ref(struct hosted *hosted)
{
    (void)atomic_fetch_add_explicit(&hosted->reference_count, 1, memory_order_relaxed);
}

void hosted_unref(struct hosted *hosted)
{
    if (atomic_fetch_sub(&hosted->reference_count, 1) > 1)
        return;
    hosted->task.run = last_reference_gone;
    loop_post(first_loop(hosted->hosting), &hosted->task);
}

// --- Opening

static char *copy_text(struct str text)
{
    char *copy = mem_alloc(text.len + 1);
    if (text.len > 0)
        memcpy(copy, text.data, text.len);
    return copy;
}

static void free_text(struct str text)
{
    char *memory;
    memcpy(&memory, &text.data, sizeof(memory)); // it came from copy_text
    mem_free(memory);
}

static void run_opening(struct job *job)
{
    struct opening *opening = (void *)((char *)job - offsetof(struct opening, job));
    struct hosting *hosting = opening->hosting;
    struct store *store = NULL;
    opening->status = open_store(hosting, &opening->error, &store);
    if (opening->status == STATUS_OK)
        opening->status = store_open_shard(store, &opening->options, &hosting->is_ending,
                                           &opening->error, &opening->shard);
}

static struct hosted *create_hosted(struct opening *opening)
{
    struct hosted *hosted = mem_alloc(sizeof(*hosted));
    hosted->hosting = opening->hosting;
    hosted->shard = opening->shard;
    hosted->shard_id = opening->options.shard_id;
    hosted->dimension = opening->options.dimension;
    hosted->distance = opening->options.distance;
    hosted->collection = copy_text(opening->options.collection);
    atomic_init(&hosted->reference_count, 1);
    atomic_init(&hosted->epoch, opening->epoch);
    begin(opening->hosting); // until it is closed
    return hosted;
}

static void insert(struct hosting *hosting, struct hosted *hosted)
{
    const struct table *old = atomic_load(&hosting->table);
    struct table *table = create_table(old->count + 1);
    uint32_t count = 0;
    uint32_t i = 0;
    for (; i < old->count && old->shards[i]->shard_id < hosted->shard_id; i++)
        table->shards[count++] = old->shards[i];
    table->shards[count++] = hosted;
    for (; i < old->count; i++)
        table->shards[count++] = old->shards[i];
    replace_table(hosting, table);
}

static void log_opened(const struct hosted *hosted)
{
    struct shard_stats stats;
    shard_stats(hosted->shard, &stats);
    log_info("shard opened", LOG_U64("shard", hosted->shard_id),
             LOG_CSTR("collection", hosted->collection), LOG_U64("points", stats.points));
    if (stats.broken_points > 0)
        log_error("points are broken on disk; the others are served",
                  LOG_U64("shard", hosted->shard_id), LOG_U64("broken", stats.broken_points));
}

static void destroy_opening(struct opening *opening)
{
    free_text(opening->options.incarnation);
    free_text(opening->options.collection);
    mem_free(opening);
}

static void remove_opening(struct hosting *hosting, struct opening *opening)
{
    struct opening **place = &hosting->openings;
    while (*place != opening)
        place = &(*place)->next;
    *place = opening->next;
    destroy_opening(opening);
}

static void opening_failed(struct hosting *hosting, struct opening *opening)
{
    // It is still being closed: that is no failure.
    bool is_closing = opening->status == STATUS_EXISTS;
    if (is_closing)
        opening->delay_ms = RETRY_MS;
    else
        opening->delay_ms =
            opening->delay_ms < FAILURE_MS_MIN ? FAILURE_MS_MIN : opening->delay_ms * 2;
    if (opening->delay_ms > FAILURE_MS_MAX)
        opening->delay_ms = FAILURE_MS_MAX;
    opening->retry_at_ns = loop_now_ns(first_loop(hosting)) + opening->delay_ms * NS_PER_MS;
    if (!is_closing)
        log_error("shard could not be opened", LOG_U64("shard", opening->options.shard_id),
                  LOG_STR("collection", opening->options.collection),
                  LOG_CSTR("error", opening->error.text), LOG_U64("retry_ms", opening->delay_ms));
    retry_later(hosting, opening->delay_ms);
}

static void opening_done(struct job *job)
{
    struct opening *opening = (void *)((char *)job - offsetof(struct opening, job));
    struct hosting *hosting = opening->hosting;
    opening->is_running = false;
    hosting->running_count--;
    if (opening->status == STATUS_OK) {
        struct hosted *hosted = create_hosted(opening);
        log_opened(hosted);
        if (is_of_map(hosting, opening) && !atomic_load(&hosting->is_ending))
            insert(hosting, hosted);
        hosted_unref(hosted);
        remove_opening(hosting, opening);
    } else if (atomic_load(&hosting->is_ending)) {
        remove_opening(hosting, opening);
    } else {
        opening_failed(hosting, opening);
    }
    // The map may have changed meanwhile, and others may wait for their turn.
    reconcile(hosting);
    end(hosting);
}

static void start_opening(struct opening *opening)
{
    struct hosting *hosting = opening->hosting;
    opening->job =
        (struct job){.loop = first_loop(hosting), .run = run_opening, .done = opening_done};
    opening->is_running = true;
    hosting->running_count++;
    begin(hosting);
    if (pool_submit(net_pool(hosting->options.net), &opening->job) == STATUS_OK)
        return;
    opening->is_running = false;
    hosting->running_count--;
    retry_later(hosting, RETRY_MS);
    end(hosting);
}

static struct opening *add_opening(struct hosting *hosting,
                                   const struct cluster_collection *collection,
                                   const struct cluster_shard *shard, enum distance distance)
{
    struct opening *opening = mem_alloc(sizeof(*opening));
    *opening = (struct opening){
        .hosting = hosting,
        .next = hosting->openings,
        .options =
            {
                .shard_id = shard->shard_id,
                .incarnation = {copy_text(hosting->map->incarnation),
                                hosting->map->incarnation.len},
                .collection = {copy_text(collection->name), collection->name.len},
                .dimension = collection->dimension,
                .distance = distance,
                .map_version = hosting->map->version,
            },
    };
    hosting->openings = opening;
    return opening;
}

// --- Following the map

static void want_shard(struct hosting *hosting, const struct cluster_collection *collection,
                       const struct cluster_shard *shard)
{
    enum distance distance;
    struct hosted *hosted = find_in(atomic_load(&hosting->table), shard->shard_id);
    if (hosted != NULL) {
        hosted->round = hosting->round;
        atomic_store(&hosted->epoch, shard->epoch);
        return;
    }
    if (!distance_from_str(collection->distance, &distance)) {
        log_error("collection has a distance that this version does not know",
                  LOG_STR("collection", collection->name),
                  LOG_STR("distance", collection->distance));
        return;
    }
    struct opening *opening = find_opening(hosting, shard->shard_id);
    if (opening == NULL)
        opening = add_opening(hosting, collection, shard, distance);
    opening->round = hosting->round;
    opening->epoch = shard->epoch;
    if (opening->is_running || hosting->running_count == OPENINGS_MAX)
        return; // whichever ends looks again
    uint64_t now = loop_now_ns(first_loop(hosting));
    if (now >= opening->retry_at_ns)
        start_opening(opening);
    else
        retry_later(hosting, (opening->retry_at_ns - now) / NS_PER_MS + 1);
}

static void drop_unwanted(struct hosting *hosting)
{
    const struct table *old = atomic_load(&hosting->table);
    struct table *table = create_table(old->count);
    table->count = 0;
    for (uint32_t i = 0; i < old->count; i++) {
        if (old->shards[i]->round == hosting->round)
            table->shards[table->count++] = old->shards[i];
        else
            shard_quiesce(old->shards[i]->shard);
    }
    if (table->count < old->count)
        replace_table(hosting, table);
    else
        mem_free(table);
    // Failures of shards that nobody wants any more are forgotten.
    struct opening *opening = hosting->openings;
    while (opening != NULL) {
        struct opening *next = opening->next;
        if (!opening->is_running && opening->round != hosting->round)
            remove_opening(hosting, opening);
        opening = next;
    }
}

// Make the table what the map says. Cheap when nothing changed.
static void reconcile(struct hosting *hosting)
{
    if (hosting->map == NULL || atomic_load(&hosting->is_ending))
        return;
    const struct cluster_map *map = hosting->map;
    hosting->round++;
    for (uint32_t i = 0; i < map->collection_count; i++) {
        const struct cluster_collection *collection = &map->collections[i];
        for (uint32_t k = 0; k < collection->shard_count; k++) {
            bool is_ours =
                hosting->worker_id != 0 && collection->shards[k].leader_id == hosting->worker_id;
            if (is_ours)
                want_shard(hosting, collection, &collection->shards[k]);
        }
    }
    drop_unwanted(hosting);
}

// --- Removing what is gone

struct leftovers {
    const struct cluster_map *map;
    uint32_t *shard_ids;
    uint32_t count;
};

static bool map_has_shard(const struct cluster_map *map, uint32_t shard_id)
{
    for (uint32_t i = 0; i < map->collection_count; i++) {
        for (uint32_t k = 0; k < map->collections[i].shard_count; k++) {
            if (map->collections[i].shards[k].shard_id == shard_id)
                return true;
        }
    }
    return false;
}

static void collect_leftover(const struct shard_options *options, void *context)
{
    struct leftovers *leftovers = context;
    const struct cluster_map *map = leftovers->map;
    if (!str_equal(options->incarnation, map->incarnation) ||
        options->map_version >= map->version || map_has_shard(map, options->shard_id))
        return;
    leftovers->shard_ids =
        mem_resize(leftovers->shard_ids, (leftovers->count + 1) * sizeof(uint32_t));
    leftovers->shard_ids[leftovers->count++] = options->shard_id;
}

static void run_sweep(struct job *job)
{
    struct hosting *hosting = (void *)((char *)job - offsetof(struct hosting, sweep.job));
    struct sweep *sweep = &hosting->sweep;
    struct store *store = NULL;
    struct leftovers leftovers = {.map = sweep->map};
    sweep->removed_count = 0;
    sweep->status = open_store(hosting, &sweep->error, &store);
    if (sweep->status != STATUS_OK)
        return;
    store_for_each_shard(store, collect_leftover, &leftovers);
    for (uint32_t i = 0; i < leftovers.count; i++) {
        enum status status =
            store_drop_shard(store, leftovers.shard_ids[i], sweep->map->incarnation, &sweep->error);
        sweep->removed_count += status == STATUS_OK;
        // Still open: when it is closed there is another sweep.
        if (status != STATUS_OK && status != STATUS_PRECONDITION)
            sweep->status = status;
    }
    mem_free(leftovers.shard_ids);
}

static void sweep_done(struct job *job)
{
    struct hosting *hosting = (void *)((char *)job - offsetof(struct hosting, sweep.job));
    struct sweep *sweep = &hosting->sweep;
    sweep->is_running = false;
    cluster_map_unref(sweep->map);
    sweep->map = NULL;
    if (sweep->removed_count > 0)
        log_info("data of deleted collections removed", LOG_U64("shards", sweep->removed_count));
    if (sweep->status != STATUS_OK)
        log_error("data of deleted collections could not be removed",
                  LOG_CSTR("error", sweep->error.text));
    if (sweep->is_wanted)
        start_sweep(hosting);
    end(hosting);
}

static void start_sweep(struct hosting *hosting)
{
    struct sweep *sweep = &hosting->sweep;
    // An empty map says too little to remove anything, and without a store there is nothing.
    bool is_useful = hosting->map != NULL && hosting->map->collection_count > 0 &&
                     !atomic_load(&hosting->is_ending) && access(hosting->path, F_OK) == 0;
    sweep->is_wanted = is_useful && sweep->is_running;
    if (!is_useful || sweep->is_running)
        return;
    sweep->job = (struct job){.loop = first_loop(hosting), .run = run_sweep, .done = sweep_done};
    sweep->map = hosting->map;
    cluster_map_ref(sweep->map);
    sweep->is_running = true;
    begin(hosting);
    if (pool_submit(net_pool(hosting->options.net), &sweep->job) == STATUS_OK)
        return;
    // The next map, or the next shard that is closed, brings another.
    sweep->is_running = false;
    cluster_map_unref(sweep->map);
    sweep->map = NULL;
    end(hosting);
}

// --- From outside

void hosting_apply(struct hosting *hosting, struct cluster_map *map)
{
    const struct cluster_map *old = hosting->map;
    if (atomic_load(&hosting->is_ending))
        return;
    if (old != NULL && str_equal(old->incarnation, map->incarnation)) {
        if (map->version <= old->version)
            return;
    } else if (old != NULL) {
        log_warn("the placement driver is not the one it was; the data of its shards is kept",
                 LOG_STR("was", old->incarnation), LOG_STR("is", map->incarnation));
        // The same shard ids would mean other shards.
        hosting->round++;
        drop_unwanted(hosting);
    }
    cluster_map_ref(map);
    cluster_map_unref(hosting->map);
    hosting->map = map;
    reconcile(hosting);
    start_sweep(hosting);
}

void hosting_set_worker_id(struct hosting *hosting, uint64_t worker_id)
{
    hosting->worker_id = worker_id;
    reconcile(hosting);
}

static void run_offer(struct task *task)
{
    struct offer *offer = (void *)((char *)task - offsetof(struct offer, task));
    struct hosting *hosting = offer->hosting;
    hosting_apply(hosting, offer->map);
    cluster_map_unref(offer->map);
    mem_free(offer);
    end(hosting);
}

void hosting_offer(struct hosting *hosting, struct cluster_map *map)
{
    struct offer *offer = mem_alloc(sizeof(*offer));
    *offer = (struct offer){.task = {.run = run_offer}, .hosting = hosting, .map = map};
    cluster_map_ref(map);
    begin(hosting);
    loop_post(first_loop(hosting), &offer->task);
}

static void retry(struct timer *timer)
{
    struct hosting *hosting = (void *)((char *)timer - offsetof(struct hosting, retry));
    struct hosted *closing = hosting->closing;
    hosting->closing = NULL;
    while (closing != NULL) {
        struct hosted *next = closing->next;
        start_closing(closing);
        closing = next;
    }
    free_old_tables(hosting);
    reconcile(hosting);
}

// --- Life cycle

struct hosting *hosting_create(const struct hosting_options *options)
{
    char *memory = mem_alloc(sizeof(struct hosting) + EPOCH_CACHE_LINE);
    size_t over = (uintptr_t)memory % EPOCH_CACHE_LINE;
    struct hosting *hosting = (void *)(memory + (over > 0 ? EPOCH_CACHE_LINE - over : 0));
    hosting->memory = memory;
    hosting->options = *options;
    hosting->path = copy_text(options->path);
    epoch_init(&hosting->epoch);
    atomic_init(&hosting->table, create_table(0));
    pthread_mutex_init(&hosting->store_mutex, NULL);
    pthread_mutex_init(&hosting->mutex, NULL);
    pthread_cond_init(&hosting->idle, NULL);
    timer_init(&hosting->retry, first_loop(hosting), retry);
    return hosting;
}

// On the first loop: let everything go.
static void let_go(struct task *task)
{
    struct offer *offer = (void *)((char *)task - offsetof(struct offer, task));
    struct hosting *hosting = offer->hosting;
    hosting->options.changed = NULL;
    hosting->round++;
    drop_unwanted(hosting);
    mem_free(offer);
    end(hosting);
}

static void stop_timer(struct task *task)
{
    struct offer *offer = (void *)((char *)task - offsetof(struct offer, task));
    struct hosting *hosting = offer->hosting;
    timer_stop(&hosting->retry);
    mem_free(offer);
    end(hosting);
}

static void run_and_wait(struct hosting *hosting, void (*run)(struct task *task))
{
    struct offer *offer = mem_alloc(sizeof(*offer));
    *offer = (struct offer){.task = {.run = run}, .hosting = hosting};
    begin(hosting);
    loop_post(first_loop(hosting), &offer->task);
    pthread_mutex_lock(&hosting->mutex);
    while (hosting->busy_count > 0)
        pthread_cond_wait(&hosting->idle, &hosting->mutex);
    pthread_mutex_unlock(&hosting->mutex);
}

void hosting_destroy(struct hosting *hosting)
{
    if (hosting == NULL)
        return;
    atomic_store(&hosting->is_ending, true);
    run_and_wait(hosting, let_go);
    run_and_wait(hosting, stop_timer);
    while (hosting->openings != NULL)
        remove_opening(hosting, hosting->openings);
    ASSERT(hosting->old_tables == NULL && hosting->closing == NULL);
    store_close(hosting->store);
    cluster_map_unref(hosting->map);
    mem_free(atomic_load(&hosting->table));
    epoch_deinit(&hosting->epoch, NULL);
    pthread_cond_destroy(&hosting->idle);
    pthread_mutex_destroy(&hosting->mutex);
    pthread_mutex_destroy(&hosting->store_mutex);
    mem_free(hosting->path);
    mem_free(hosting->memory);
}
