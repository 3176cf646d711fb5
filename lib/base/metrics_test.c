#include "base/metrics.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "testing/test.h"

enum { THREAD_COUNT = 4, ROUND_COUNT = 20000 };

static struct str print(struct buf *out)
{
    buf_clear(out);
    metrics_print(out);
    CHECK(!buf_has_overflowed(out));
    return buf_str(out);
}

// The number behind the line's name, or -1.
static double value_of(struct str text, const char *name)
{
    while (text.len > 0) {
        struct str value = str_cut(&text, '\n');
        // Labels hold no blanks here.
        if (str_equal_cstr(str_cut(&value, ' '), name)) {
            double number = 0;
            CHECK(str_to_double(value, &number));
            return number;
        }
    }
    return -1;
}

static unsigned count_of(struct str text, struct str line)
{
    unsigned count = 0;
    while (text.len > 0)
        count += str_equal(str_cut(&text, '\n'), line);
    return count;
}

TEST(counters_and_gauges)
{
    struct metric *counter = metric_counter("vectron_tests_total", "kind=\"a\"", "Tests.");
    CHECK(metric_counter("vectron_tests_total", "kind=\"a\"", "Tests.") == counter);
    struct metric *other = metric_counter("vectron_tests_total", "kind=\"b\"", "Tests.");
    CHECK(other != counter);
    struct metric *gauge = metric_gauge("vectron_depth", NULL, "Depth.");
    metric_add(counter, 3);
    metric_add(counter, 4);
    metric_set(gauge, 5);
    metric_move(gauge, -9);
    CHECK_EQ_U64(metric_count(counter), 7);
    CHECK_EQ_I64(metric_value(gauge), -4);

    struct buf out;
    buf_init(&out, 1 << 20);
    struct str text = print(&out);
    CHECK(value_of(text, "vectron_tests_total{kind=\"a\"}") == 7);
    CHECK(value_of(text, "vectron_tests_total{kind=\"b\"}") == 0);
    CHECK(value_of(text, "vectron_depth") == -4);
    CHECK_EQ_U64(count_of(text, STR("# HELP vectron_tests_total Tests.")), 1);
    CHECK_EQ_U64(count_of(text, STR("# TYPE vectron_tests_total counter")), 1);
    CHECK_EQ_U64(count_of(text, STR("# TYPE vectron_depth gauge")), 1);
    buf_deinit(&out);
}

TEST(histograms)
{
    struct metric *metric = metric_histogram("vectron_wait_seconds", "m=\"x\"", "Waiting.");
    CHECK(metric_quantile(metric, 0.5) == 0);
    metric_observe(metric, 0);
    metric_observe(metric, -1);
    metric_observe(metric, NAN);
    metric_observe(metric, 0.00001);  // on the bound: still the first bucket
    metric_observe(metric, 0.000011); // just over it
    metric_observe(metric, 0.5);
    metric_observe(metric, 1e30);
    CHECK_EQ_U64(metric_count(metric), 7);

    struct buf out;
    buf_init(&out, 1 << 20);
    struct str text = print(&out);
    CHECK(value_of(text, "vectron_wait_seconds_bucket{m=\"x\",le=\"1e-05\"}") == 4);
    CHECK(value_of(text, "vectron_wait_seconds_bucket{m=\"x\",le=\"2e-05\"}") == 5);
    CHECK(value_of(text, "vectron_wait_seconds_bucket{m=\"x\",le=\"0.32768\"}") == 5);
    CHECK(value_of(text, "vectron_wait_seconds_bucket{m=\"x\",le=\"0.65536\"}") == 6);
    CHECK(value_of(text, "vectron_wait_seconds_bucket{m=\"x\",le=\"83.88608\"}") == 6);
    CHECK(value_of(text, "vectron_wait_seconds_count{m=\"x\"}") == 7);
    CHECK_CONTAINS(text, STR("le=\"+Inf\"} 7\n"));
    CHECK_CONTAINS(text, STR("# TYPE vectron_wait_seconds histogram\n"));
    buf_deinit(&out);

    struct metric *second = metric_histogram("vectron_other_seconds", NULL, "Other.");
    for (int i = 0; i < 1000; i++)
        metric_observe(second, 0.001 * i);
    CHECK(metric_sum(second) > 499 && metric_sum(second) < 500);
    CHECK(metric_quantile(second, 0.5) > 0.4 && metric_quantile(second, 0.5) < 0.6);
    CHECK(metric_quantile(second, 1) <= 1.4 && metric_quantile(second, 1) > 0.9);
    CHECK(metric_quantile(second, 0) >= 0);
}

TEST(the_process_itself)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    struct str text = print(&out);
    CHECK(value_of(text, "process_resident_memory_bytes") > 500000);
    CHECK(value_of(text, "process_virtual_memory_bytes") > 500000);
    CHECK(value_of(text, "process_cpu_seconds_total") > 0);
    CHECK(value_of(text, "process_open_fds") >= 3);
    CHECK(value_of(text, "process_open_fds") < 100);
    CHECK(value_of(text, "process_max_fds") > 10);
    CHECK(value_of(text, "process_threads") >= 1);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double age = (double)now.tv_sec - value_of(text, "process_start_time_seconds");
    CHECK(age > -2 && age < 600);
    buf_deinit(&out);
}

TEST(sorted_by_name)
{
    metric_counter("vectron_a_total", NULL, "A.");
    metric_counter("aaa_total", NULL, "Before the process' own.");
    struct buf out;
    buf_init(&out, 1 << 20);
    struct str text = print(&out);
    struct str last = STR("");
    unsigned types = 0;
    while (text.len > 0) {
        struct str line = str_cut(&text, '\n');
        if (!str_starts_with(line, STR("# TYPE ")))
            continue;
        line.data += 7;
        line.len -= 7;
        struct str name = str_cut(&line, ' ');
        CHECK(str_compare(last, name) < 0); // so each name has one TYPE
        last = name;
        types++;
    }
    CHECK(types >= 9);
    buf_deinit(&out);
}

static struct metric *shared[3];

static void *change(void *unused)
{
    (void)unused;
    for (int i = 0; i < ROUND_COUNT; i++) {
        metric_add(shared[0], 1);
        metric_move(shared[1], i % 2 == 0 ? 1 : -1);
        metric_observe(shared[2], 0.001);
        if (i % 5000 == 0)
            CHECK(metric_counter("vectron_shared_total", NULL, "Shared.") == shared[0]);
    }
    return NULL;
}

TEST(threads_lose_nothing)
{
    shared[0] = metric_counter("vectron_shared_total", NULL, "Shared.");
    shared[1] = metric_gauge("vectron_shared", NULL, "Shared.");
    shared[2] = metric_histogram("vectron_shared_seconds", NULL, "Shared.");
    pthread_t threads[THREAD_COUNT];
    for (int i = 0; i < THREAD_COUNT; i++)
        CHECK(pthread_create(&threads[i], NULL, change, NULL) == 0);
    struct buf out;
    buf_init(&out, 1 << 20);
    for (int i = 0; i < 20; i++)
        print(&out);
    for (int i = 0; i < THREAD_COUNT; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK_EQ_U64(metric_count(shared[0]), THREAD_COUNT * ROUND_COUNT);
    CHECK_EQ_I64(metric_value(shared[1]), 0);
    CHECK_EQ_U64(metric_count(shared[2]), THREAD_COUNT * ROUND_COUNT);
    CHECK(metric_sum(shared[2]) > 79.99 && metric_sum(shared[2]) < 80.01);
    buf_deinit(&out);
}

TEST_MAIN()
