#include "apigateway/alerts.h"

#include <pthread.h>
#include <string.h>

#include "api/json.h"
#include "base/mem.h"

enum { ALERTS_MAX = 256, KEY_SIZE_MAX = 320, MESSAGE_SIZE_MAX = 512 };

struct alert {
    uint64_t id; // 0: free
    char key[KEY_SIZE_MAX + 1];
    char message[MESSAGE_SIZE_MAX + 1];
    enum alert_level level;
    int64_t raised_at;
    int64_t resolved_at; // 0: active
    bool holds;          // its condition was there in the last survey
    bool is_confirmed;   // by the survey that is being taken over
};

struct alerts {
    pthread_mutex_t lock;
    uint64_t next_id;
    struct alert all[ALERTS_MAX];
};

struct alerts *alerts_create(void)
{
    struct alerts *alerts = mem_alloc(sizeof(*alerts));
    pthread_mutex_init(&alerts->lock, NULL);
    alerts->next_id = 1;
    return alerts;
}

void alerts_destroy(struct alerts *alerts)
{
    if (alerts == NULL)
        return;
    pthread_mutex_destroy(&alerts->lock);
    mem_free(alerts);
}

static void copy_text(char *to, size_t size_max, struct str text)
{
    size_t size = text.len < size_max ? text.len : size_max;
    if (size > 0)
        memcpy(to, text.data, size);
    to[size] = '\0';
}

static struct alert *find_condition(struct alerts *alerts, struct str key)
{
    for (uint32_t i = 0; i < ALERTS_MAX; i++) {
        struct alert *alert = &alerts->all[i];
        if (alert->id != 0 && alert->holds && str_equal_cstr(key, alert->key))
            return alert;
    }
    return NULL;
}

// A free place, else the oldest alert that is over, else the oldest.
static struct alert *find_room(struct alerts *alerts)
{
    struct alert *oldest = &alerts->all[0];
    struct alert *oldest_over = NULL;
    for (uint32_t i = 0; i < ALERTS_MAX; i++) {
        struct alert *alert = &alerts->all[i];
        if (alert->id == 0)
            return alert;
        if (alert->id < oldest->id)
            oldest = alert;
        if (alert->resolved_at != 0 && !alert->holds &&
            (oldest_over == NULL || alert->id < oldest_over->id))
            oldest_over = alert;
    }
    return oldest_over != NULL ? oldest_over : oldest;
}

void alerts_update(struct alerts *alerts, const struct alert_condition *conditions, uint32_t count,
                   int64_t now)
{
    pthread_mutex_lock(&alerts->lock);
    for (uint32_t i = 0; i < count && i < ALERTS_MAX; i++) {
        const struct alert_condition *condition = &conditions[i];
        struct str key = condition->key;
        if (key.len > KEY_SIZE_MAX)
            key.len = KEY_SIZE_MAX;
        struct alert *alert = find_condition(alerts, key);
        if (alert == NULL) {
            alert = find_room(alerts);
            *alert = (struct alert){.id = alerts->next_id++, .raised_at = now, .holds = true};
            copy_text(alert->key, KEY_SIZE_MAX, key);
        }
        alert->level = condition->level;
        alert->is_confirmed = true;
        copy_text(alert->message, MESSAGE_SIZE_MAX, condition->message);
    }
    for (uint32_t i = 0; i < ALERTS_MAX; i++) {
        struct alert *alert = &alerts->all[i];
        if (alert->holds && !alert->is_confirmed) {
            alert->holds = false;
            if (alert->resolved_at == 0)
                alert->resolved_at = now;
        }
        alert->is_confirmed = false;
    }
    pthread_mutex_unlock(&alerts->lock);
}

bool alerts_resolve(struct alerts *alerts, uint64_t id, int64_t now)
{
    bool is_found = false;
    pthread_mutex_lock(&alerts->lock);
    for (uint32_t i = 0; i < ALERTS_MAX && id != 0; i++) {
        struct alert *alert = &alerts->all[i];
        if (alert->id != id)
            continue;
        is_found = true;
        if (alert->resolved_at == 0)
            alert->resolved_at = now;
    }
    pthread_mutex_unlock(&alerts->lock);
    return is_found;
}

uint32_t alerts_active_count(struct alerts *alerts)
{
    uint32_t count = 0;
    pthread_mutex_lock(&alerts->lock);
    for (uint32_t i = 0; i < ALERTS_MAX; i++)
        count += alerts->all[i].id != 0 && alerts->all[i].resolved_at == 0;
    pthread_mutex_unlock(&alerts->lock);
    return count;
}

static const char *level_name(enum alert_level level)
{
    return level == ALERT_CRITICAL ? "critical" : "warning";
}

static const char *status_of(const struct alert *alert)
{
    return alert->resolved_at == 0 ? "active" : "resolved";
}

static bool is_wanted(const struct alert *alert, struct str status, struct str level)
{
    return alert->id != 0 && (status.len == 0 || str_equal_cstr(status, status_of(alert))) &&
           (level.len == 0 || str_equal_cstr(level, level_name(alert->level)));
}

// The wanted one with the greatest id below the given one; NULL: none.
static const struct alert *next_older(const struct alerts *alerts, uint64_t below,
                                      struct str status, struct str level)
{
    const struct alert *newest = NULL;
    for (uint32_t i = 0; i < ALERTS_MAX; i++) {
        const struct alert *alert = &alerts->all[i];
        if (is_wanted(alert, status, level) && alert->id < below &&
            (newest == NULL || alert->id > newest->id))
            newest = alert;
    }
    return newest;
}

void alerts_print(struct alerts *alerts, struct str status, struct str level, struct buf *out)
{
    bool is_first = true;
    buf_append_byte(out, '[');
    pthread_mutex_lock(&alerts->lock);
    const struct alert *alert = next_older(alerts, UINT64_MAX, status, level);
    for (; alert != NULL; alert = next_older(alerts, alert->id, status, level)) {
        buf_append_format(out, "%s{\"id\":\"%llu\",\"level\":\"%s\",\"status\":\"%s\",\"message\":",
                          is_first ? "" : ",", (unsigned long long)alert->id,
                          level_name(alert->level), status_of(alert));
        json_append_string(out, str_from_cstr(alert->message));
        buf_append_format(out, ",\"raisedAt\":%lld,\"resolvedAt\":%lld}",
                          (long long)alert->raised_at, (long long)alert->resolved_at);
        is_first = false;
    }
    pthread_mutex_unlock(&alerts->lock);
    buf_append_byte(out, ']');
}
