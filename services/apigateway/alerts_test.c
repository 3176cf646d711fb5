#include "apigateway/alerts.h"

#include <stdio.h>

#include "testing/test.h"

static struct alert_condition condition(const char *key)
{
    return (struct alert_condition){str_from_cstr(key), ALERT_CRITICAL, STR("a \"message\"")};
}

static void print(struct alerts *alerts, const char *status, const char *level, struct buf *out)
{
    buf_clear(out);
    alerts_print(alerts, str_from_cstr(status), str_from_cstr(level), out);
}

TEST(raised_once_resolved_when_gone)
{
    struct alerts *alerts = alerts_create();
    struct buf text;
    buf_init(&text, 1 << 20);
    struct alert_condition one = condition("worker/1");
    alerts_update(alerts, &one, 1, 100);
    alerts_update(alerts, &one, 1, 110);
    CHECK_EQ_U64(alerts_active_count(alerts), 1);
    print(alerts, "", "", &text);
    CHECK_STR(buf_str(&text), STR("[{\"id\":\"1\",\"level\":\"critical\",\"status\":\"active\","
                                  "\"message\":\"a \\\"message\\\"\",\"raisedAt\":100,"
                                  "\"resolvedAt\":0}]"));
    alerts_update(alerts, NULL, 0, 120);
    CHECK_EQ_U64(alerts_active_count(alerts), 0);
    print(alerts, "active", "", &text);
    CHECK_STR(buf_str(&text), STR("[]"));
    print(alerts, "resolved", "critical", &text);
    CHECK_CONTAINS(buf_str(&text), STR("\"resolvedAt\":120"));
    print(alerts, "", "warning", &text);
    CHECK_STR(buf_str(&text), STR("[]"));
    // Again: a new alert.
    alerts_update(alerts, &one, 1, 130);
    print(alerts, "active", "", &text);
    CHECK_CONTAINS(buf_str(&text), STR("\"id\":\"2\""));
    buf_deinit(&text);
    alerts_destroy(alerts);
}

TEST(one_that_a_person_resolved_stays_so)
{
    struct alerts *alerts = alerts_create();
    struct alert_condition one = condition("worker/1");
    alerts_update(alerts, &one, 1, 100);
    CHECK(!alerts_resolve(alerts, 0, 105) && !alerts_resolve(alerts, 2, 105));
    CHECK(alerts_resolve(alerts, 1, 105) && alerts_resolve(alerts, 1, 106));
    alerts_update(alerts, &one, 1, 110);
    CHECK_EQ_U64(alerts_active_count(alerts), 0);
    alerts_update(alerts, NULL, 0, 120);
    alerts_update(alerts, &one, 1, 130);
    CHECK_EQ_U64(alerts_active_count(alerts), 1);
    alerts_destroy(alerts);
}

TEST(bounded)
{
    struct alerts *alerts = alerts_create();
    struct buf text;
    buf_init(&text, 1 << 20);
    for (int i = 0; i < 1000; i++) {
        char key[32];
        (void)snprintf(key, sizeof(key), "worker/%d", i);
        struct alert_condition one = condition(key);
        alerts_update(alerts, &one, 1, i);
        CHECK_EQ_U64(alerts_active_count(alerts), 1);
    }
    print(alerts, "active", "", &text);
    CHECK_CONTAINS(buf_str(&text), STR("\"id\":\"1000\""));
    buf_deinit(&text);
    alerts_destroy(alerts);
}

TEST_MAIN()
