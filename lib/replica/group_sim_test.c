#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "replica/group_sim_testing.h"
#include "testing/test.h"

// Seeds of the simulation: those that once failed, new ones, and planted bugs that it must find.
// SIM_SEED=… runs one and tells what happens, SIM_SEEDS=… so many (make sim).

enum { SEEDS_DEFAULT = 40, PLANTED_SEEDS_MAX = 400 };

// 8219439557833: refused pre-votes did not tell the term.
static const uint64_t failed_before[] = {8219439557833};

static bool run(uint64_t seed, enum sim_bug bug, bool is_verbose, struct sim_result *out_result)
{
    char folder[512];
    (void)snprintf(folder, sizeof(folder), "%s/sim", test_temporary_folder());
    sim_run(&(struct sim_options){seed, bug, folder, is_verbose}, out_result);
    return out_result->failure[0] == '\0';
}

static void check_seed(uint64_t seed, struct sim_result *total)
{
    struct sim_result result;
    if (!run(seed, SIM_BUG_NONE, false, &result))
        printf("seed %llu: %s\n", (unsigned long long)seed, result.failure);
    CHECK(result.failure[0] == '\0');
    total->virtual_ms += result.virtual_ms;
    total->acknowledged_count += result.acknowledged_count;
    total->read_count += result.read_count;
    total->crash_count += result.crash_count;
    total->install_count += result.install_count;
    total->change_count += result.change_count;
}

TEST(no_seed_breaks_a_group)
{
    struct sim_result total = {0};
    const char *one = getenv("SIM_SEED");   // NOLINT(concurrency-mt-unsafe): no other thread yet
    const char *many = getenv("SIM_SEEDS"); // NOLINT(concurrency-mt-unsafe): as above
    uint64_t count = many != NULL ? strtoull(many, NULL, 10) : SEEDS_DEFAULT;
    if (one != NULL) {
        struct sim_result result;
        bool holds = run(strtoull(one, NULL, 10), SIM_BUG_NONE, true, &result);
        printf("%s\n", holds ? "held" : result.failure);
        CHECK(holds);
        return;
    }
    uint64_t started_ns = clock_monotonic_ns();
    for (size_t i = 0; i < sizeof(failed_before) / sizeof(failed_before[0]); i++)
        check_seed(failed_before[i], &total);
    uint64_t first = many != NULL ? started_ns : 1000; // others each time when asked for many
    for (uint64_t i = 0; i < count; i++)
        check_seed(first + i, &total);
    double minutes = (double)(clock_monotonic_ns() - started_ns) * 1e-9 / 60;
    printf("%llu seeds from %llu, %.1f virtual hours, %.0f seeds a minute: %llu acknowledged, "
           "%llu reads, %llu kills, %llu snapshots, %llu changes of members\n",
           (unsigned long long)count, (unsigned long long)first, (double)total.virtual_ms / 3600000,
           (double)count / minutes, (unsigned long long)total.acknowledged_count,
           (unsigned long long)total.read_count, (unsigned long long)total.crash_count,
           (unsigned long long)total.install_count, (unsigned long long)total.change_count);
    CHECK(total.acknowledged_count > 1000 * count);
    CHECK(total.crash_count > 0 && total.install_count > 0 && total.change_count > 0);
}

static void check_found(enum sim_bug bug, uint64_t seed, const char *name)
{
    struct sim_result result;
    uint64_t last = seed + PLANTED_SEEDS_MAX;
    while (seed <= last && run(seed, bug, false, &result))
        seed++;
    CHECK(seed <= last);
    printf("%s: found by seed %llu: %s\n", name, (unsigned long long)seed, result.failure);
}

TEST(entries_that_count_before_they_are_on_disk_are_found)
{
    check_found(SIM_BUG_WRITTEN_TOO_EARLY, 110, "written too early");
}

TEST(a_command_that_a_member_passes_over_is_found)
{
    check_found(SIM_BUG_A_COMMAND_IS_MISSED, 1, "a command is missed");
}

TEST_MAIN()
