#include "index/index_tune.h"

#include <string.h>

#include "base/mem.h"
#include "index/flat.h"
#include "index/image.h"
#include "index/index_internal.h"

enum {
    TRUTH = 10,
    SAMPLE_SIZE_MAX = 1 << 20, // bytes of queries
    QUERIES_MIN = 4,
    POINTS_MANY = 2 << 20, // so many are compared with fewer queries
    QUERIES_OF_MANY = 24,
    LEVEL_DEFAULT = 3,
    RESCORED_DEFAULT = 0,
    RESCORED_COST = 3, // a full vector is as much as so many codes
    RECALL_WANTED = 9800,
    RECALL_WHOLE = 10000,
    CHANGE_FACTOR = 2,
};

static const struct {
    float stop;
    uint32_t width;
} levels[TUNE_LEVELS] = {{1.05F, 1500}, {1.1F, 1500}, {1.15F, 1500}, {1.2F, 1500}, {1.25F, 1500},
                         {1.3F, 1500},  {1.4F, 2000}, {1.6F, 3000},  {2.0F, 5000}, {4.0F, 10000}};

static const uint32_t rescored_counts[TUNE_RESCORED] = {30, 60, 120, 250, 500, 1000};

struct tuner *tuner_create(uint32_t dimension)
{
    struct tuner *tuner = mem_alloc(sizeof(*tuner));
    size_t size = dimension * sizeof(float);
    tuner->capacity = TUNE_QUERIES_MAX;
    while (tuner->capacity > QUERIES_MIN && tuner->capacity * size > SAMPLE_SIZE_MAX)
        tuner->capacity /= 2;
    tuner->queries = mem_alloc(tuner->capacity * size);
    atomic_init(&tuner->level, LEVEL_DEFAULT);
    atomic_init(&tuner->rescored, RESCORED_DEFAULT);
    return tuner;
}

void tuner_destroy(struct tuner *tuner)
{
    if (tuner == NULL)
        return;
    mem_free(tuner->queries);
    mem_free(tuner);
}

void tuner_offer(struct tuner *tuner, const float *vector, uint32_t dimension)
{
    if (atomic_exchange_explicit(&tuner->is_taken, true, memory_order_acquire))
        return;
    uint32_t number = atomic_load_explicit(&tuner->offered, memory_order_relaxed);
    memcpy(tuner->queries + (size_t)(number % tuner->capacity) * dimension, vector,
           dimension * sizeof(float));
    atomic_store_explicit(&tuner->offered, number + 1, memory_order_relaxed);
    atomic_store_explicit(&tuner->is_taken, false, memory_order_release);
}

bool tuner_is_short(const struct tuner *tuner)
{
    return atomic_load_explicit(&tuner->offered, memory_order_relaxed) < tuner->capacity;
}

struct tune_effort tuner_effort(const struct tuner *tuner)
{
    uint32_t level = atomic_load_explicit(&tuner->level, memory_order_relaxed);
    uint32_t rescored = atomic_load_explicit(&tuner->rescored, memory_order_relaxed);
    return (struct tune_effort){levels[level].stop, levels[level].width, rescored_counts[rescored]};
}

// Enough for a sample, and again when there were as many more as before.
static bool has_recent(const struct tuner *tuner)
{
    return atomic_load_explicit(&tuner->offered, memory_order_relaxed) >=
           2 * tuner->tuned_offered + tuner->capacity;
}

bool tuner_wants(const struct tuner *tuner, uint64_t point_count)
{
    return tuner->is_running || point_count > tuner->tuned_points * CHANGE_FACTOR ||
           point_count < tuner->tuned_points / CHANGE_FACTOR || has_recent(tuner);
}

// --- Keeping: points u32 · recall u16 · rescored u8 · level u8, from the lowest bit

uint64_t tuner_save(const struct tuner *tuner)
{
    return (atomic_load(&tuner->tuned_points) & UINT32_MAX) |
           (uint64_t)atomic_load(&tuner->recall) << 32 |
           (uint64_t)atomic_load(&tuner->rescored) << 48 |
           (uint64_t)atomic_load(&tuner->level) << 56;
}

void tuner_restore(struct tuner *tuner, uint64_t saved)
{
    uint32_t recall = saved >> 32 & UINT16_MAX;
    uint32_t rescored = saved >> 48 & UINT8_MAX;
    uint32_t level = (uint32_t)(saved >> 56);
    if (recall > RECALL_WHOLE || rescored >= TUNE_RESCORED || level >= TUNE_LEVELS)
        return;
    atomic_store(&tuner->tuned_points, saved & UINT32_MAX);
    atomic_store(&tuner->recall, recall);
    atomic_store(&tuner->rescored, rescored);
    atomic_store(&tuner->level, level);
}

// --- Measuring

struct truth {
    const float *vector;
    uint32_t self; // the slot that is the query itself, or INDEX_SLOT_NONE
    uint32_t slots[TRUTH];
    uint32_t count;
};

static bool find_truth(const struct index_view *view, struct truth *truth)
{
    struct index_hit hits[TRUTH + 1];
    struct top top = {.view = view, .hits = hits, .top_k = TRUTH + 1};
    struct index_stats stats = {0};
    const struct index_search search = {
        .vector = truth->vector, .top_k = TRUTH + 1, .deadline_ns = UINT64_MAX};
    if (flat_search(view, &search, false, &top, &stats) != STATUS_OK)
        return false;
    top_sort(&top);
    truth->count = 0;
    for (uint32_t i = 0; i < top.count && truth->count < TRUTH; i++) {
        if (hits[i].slot != truth->self)
            truth->slots[truth->count++] = hits[i].slot;
    }
    return truth->count == TRUTH;
}

static bool is_true(const struct truth *truth, uint32_t slot)
{
    for (uint32_t i = 0; i < truth->count; i++) {
        if (truth->slots[i] == slot)
            return true;
    }
    return false;
}

// How many of the true ones are among the first so many candidates.
static void count_hits(const struct beam *beam, const struct truth *truth,
                       uint32_t hits[static TUNE_RESCORED])
{
    uint32_t rank = 0;
    for (uint32_t i = 0; i < beam->count && rank < rescored_counts[TUNE_RESCORED - 1]; i++) {
        if (beam->slots[i] == truth->self)
            continue;
        rank++;
        if (!is_true(truth, beam->slots[i]))
            continue;
        for (uint32_t k = 0; k < TUNE_RESCORED; k++)
            hits[k] += rank <= rescored_counts[k];
    }
}

static bool measure(struct tuner *tuner, struct index *index, struct truth *truth)
{
    struct index_view view;
    bool is_done = true;
    const struct graph *graph = atomic_load_explicit(&index->graph, memory_order_relaxed);
    index_view_open(index, &view);
    struct beam *beam = index_beam_of(&view);
    if (find_truth(&view, truth)) {
        tuner->count++;
        for (uint32_t level = 0; level < TUNE_LEVELS && is_done; level++) {
            const struct graph_search search = {
                .vector = truth->vector,
                .width = levels[level].width,
                .k = TRUTH,
                .stop = levels[level].stop,
                .has_excluded = truth->self != INDEX_SLOT_NONE,
                .excluded = truth->self,
            };
            uint64_t compared = beam->compared;
            is_done = graph_search(graph, beam, &search) == STATUS_OK;
            tuner->compared[level] += beam->compared - compared;
            count_hits(beam, truth, tuner->hits[level]);
        }
    }
    index_view_close(&view);
    return is_done;
}

// The cheapest that finds enough; the most thorough when none does.
static void choose(struct tuner *tuner)
{
    uint32_t best_level = TUNE_LEVELS - 1;
    uint32_t best_rescored = TUNE_RESCORED - 1;
    uint64_t best_cost = UINT64_MAX;
    uint64_t all = (uint64_t)tuner->count * TRUTH;
    for (uint32_t level = 0; level < TUNE_LEVELS; level++) {
        for (uint32_t k = 0; k < TUNE_RESCORED; k++) {
            uint64_t cost = tuner->compared[level] / tuner->count +
                            (uint64_t)rescored_counts[k] * RESCORED_COST;
            if (tuner->hits[level][k] * (uint64_t)RECALL_WHOLE < all * RECALL_WANTED ||
                cost >= best_cost)
                continue;
            best_cost = cost;
            best_level = level;
            best_rescored = k;
        }
    }
    atomic_store_explicit(&tuner->level, best_level, memory_order_relaxed);
    atomic_store_explicit(&tuner->rescored, best_rescored, memory_order_relaxed);
    atomic_store_explicit(
        &tuner->recall,
        (uint32_t)(tuner->hits[best_level][best_rescored] * (uint64_t)RECALL_WHOLE / all),
        memory_order_relaxed);
}

static void begin(struct tuner *tuner, const struct index *index)
{
    tuner->is_running = true;
    tuner->is_recent = atomic_load(&tuner->offered) >= tuner->capacity;
    tuner->next = 0;
    tuner->count = 0;
    tuner->wanted = tuner->capacity;
    if (index_point_count(index) > POINTS_MANY && tuner->wanted > QUERIES_OF_MANY)
        tuner->wanted = QUERIES_OF_MANY;
    memset(tuner->hits, 0, sizeof(tuner->hits));
    memset(tuner->compared, 0, sizeof(tuner->compared));
}

// A stored point, at about even distances over all slots; not one of an upper layer, from where a
// search would come to it although it is passed over.
static uint32_t pick_slot(const struct index *index, uint32_t number, uint32_t count)
{
    uint32_t slots = index_slot_count(index);
    const struct graph *graph = atomic_load_explicit(&index->graph, memory_order_relaxed);
    uint32_t slot = (uint32_t)((uint64_t)number * slots / count);
    for (uint32_t i = 0; i < slots; i++, slot = slot + 1 < slots ? slot + 1 : 0) {
        if (graph_is_linked(graph, slot) && !graph_is_upper(slot))
            return slot;
    }
    return INDEX_SLOT_NONE;
}

static bool take_query(struct tuner *tuner, struct index *index, struct truth *truth, float *vector)
{
    uint32_t dimension = index->options.dimension;
    truth->vector = vector;
    truth->self = INDEX_SLOT_NONE;
    if (!tuner->is_recent) {
        truth->self = pick_slot(index, tuner->next, tuner->wanted);
        if (truth->self == INDEX_SLOT_NONE)
            return false;
        memcpy(vector, index_vector(index, truth->self), dimension * sizeof(float));
        return true;
    }
    if (atomic_exchange_explicit(&tuner->is_taken, true, memory_order_acquire))
        return false;
    memcpy(vector, tuner->queries + (size_t)tuner->next * dimension, dimension * sizeof(float));
    atomic_store_explicit(&tuner->is_taken, false, memory_order_release);
    return true;
}

bool tuner_step(struct tuner *tuner, struct index *index)
{
    if (!tuner->is_running)
        begin(tuner, index);
    float *vector = mem_alloc(index->options.dimension * sizeof(float));
    struct truth truth;
    bool is_done = !take_query(tuner, index, &truth, vector) || measure(tuner, index, &truth);
    mem_free(vector);
    tuner->next++;
    if (is_done && tuner->next < tuner->wanted)
        return true;
    tuner->is_running = false;
    if (tuner->is_recent)
        atomic_store(&tuner->tuned_offered, atomic_load(&tuner->offered));
    tuner->tuned_points = index_point_count(index);
    if (is_done && tuner->count > 0)
        choose(tuner);
    return false;
}
