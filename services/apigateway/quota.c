#include "apigateway/quota.h"

#include <pthread.h>

#include "base/map.h"
#include "base/mem.h"

// A request that ended before a measurement began is in it; one that was under way may be or not.
// So what was added before the last measurement counts until the next: used is what was measured
// last, what was added since, and what was added in the interval before.

struct usage {
    struct quota_amount measured;
    struct quota_amount next; // of the measurement under way
    struct quota_amount added;
    struct quota_amount added_before;
};

struct quota {
    struct quota_options options;
    pthread_mutex_t lock; // of the rest
    struct map *users;    // user id → struct usage
};

struct quota *quota_create(const struct quota_options *options)
{
    struct quota *quota = mem_alloc(sizeof(*quota));
    quota->options = *options;
    pthread_mutex_init(&quota->lock, NULL);
    quota->users = map_create();
    return quota;
}

static void free_all(struct map *users)
{
    struct str user_id;
    void *usage = NULL;
    for (size_t position = 0; map_next(users, &position, &user_id, &usage);)
        mem_free(usage);
    map_destroy(users);
}

void quota_destroy(struct quota *quota)
{
    if (quota == NULL)
        return;
    free_all(quota->users);
    pthread_mutex_destroy(&quota->lock);
    mem_free(quota);
}

struct quota_amount quota_max(const struct quota *quota, enum plan plan)
{
    return plan == PLAN_PAID ? quota->options.paid_max : quota->options.free_max;
}

static struct usage *find(struct quota *quota, struct str user_id)
{
    struct usage *usage = map_get(quota->users, user_id);
    if (usage == NULL) {
        usage = mem_alloc(sizeof(*usage));
        (void)map_put(quota->users, user_id, usage); // there was none
    }
    return usage;
}

static void add(struct quota_amount *to, const struct quota_amount *amount)
{
    to->points += amount->points;
    to->bytes += amount->bytes;
}

static bool fits(uint64_t used, uint64_t more, uint64_t max)
{
    return max == 0 || (used <= max && more <= max - used);
}

bool quota_take(struct quota *quota, struct str user_id, enum plan plan,
                const struct quota_amount *amount, struct quota_amount *out_used)
{
    struct quota_amount max = quota_max(quota, plan);
    if (max.points == 0 && max.bytes == 0)
        return true;
    pthread_mutex_lock(&quota->lock);
    struct usage *usage = find(quota, user_id);
    struct quota_amount used = usage->measured;
    add(&used, &usage->added_before);
    add(&used, &usage->added);
    bool is_within =
        fits(used.points, amount->points, max.points) && fits(used.bytes, amount->bytes, max.bytes);
    if (is_within)
        add(&usage->added, amount);
    pthread_mutex_unlock(&quota->lock);
    *out_used = used;
    return is_within;
}

void quota_measured(struct quota *quota, struct str user_id, const struct quota_amount *amount)
{
    pthread_mutex_lock(&quota->lock);
    add(&find(quota, user_id)->next, amount);
    pthread_mutex_unlock(&quota->lock);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool is_empty(const struct usage *usage)
{
    return usage->measured.points == 0 && usage->measured.bytes == 0 &&
           usage->added_before.points == 0 && usage->added_before.bytes == 0;
}

static void end_of(struct usage *usage, bool is_complete)
{
    struct quota_amount now = usage->next;
    if (!is_complete) {
        now.points = larger(now.points, usage->measured.points);
        now.bytes = larger(now.bytes, usage->measured.bytes);
    }
    *usage = (struct usage){.measured = now, .added_before = usage->added};
}

// Those who keep nothing any more are forgotten.
void quota_measure_end(struct quota *quota, bool is_complete)
{
    struct map *kept = map_create();
    struct str user_id;
    void *value = NULL;
    pthread_mutex_lock(&quota->lock);
    for (size_t position = 0; map_next(quota->users, &position, &user_id, &value);) {
        struct usage *usage = value;
        end_of(usage, is_complete);
        if (is_empty(usage))
            mem_free(usage);
        else
            (void)map_put(kept, user_id, usage);
    }
    map_destroy(quota->users);
    quota->users = kept;
    pthread_mutex_unlock(&quota->lock);
}
